"""What the documents show works as they show it."""

import importlib
import re
from pathlib import Path

import torch

import zoopt
from zoopt import registry
from zoopt.objectives import registry as objectives
from zoopt.testing import check_objective

ROOT = Path(__file__).parents[1]


def blocks(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_estimator_of_contributing_works():
    (code,) = blocks("CONTRIBUTING.md")
    names = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    x = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    estimator = names["OneSided"](eps=1e-4, n=4)
    optimizer = zoopt.ZOOptimizer([x], lr=0.1, estimator=estimator)
    for _ in range(100):
        optimizer.step(lambda: (x**2).sum())
    assert x.abs().max() < 0.05


def test_the_readme_shows_python_that_compiles_and_names_that_exist():
    for code in blocks("README.md"):
        compile(code, "README.md", "exec")
        for name in re.findall(r"zoopt\.(\w+)", code):
            assert hasattr(zoopt, name), name


def test_the_readmes_first_example_learns():
    names = {}
    exec(compile(blocks("README.md")[0], "README.md", "exec"), names)
    assert names["accuracy"]() > 0.95


def test_files_that_the_page_of_the_design_names_exist():
    files = {path.as_posix() for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    for name in re.findall(r"`([\w/]+\.py)`", (ROOT / "docs/design.md").read_text("utf-8")):
        assert any(file.endswith(f"/{name}") for file in files), name


def test_the_page_of_precision_prints_what_it_shows(capsys):
    text = (ROOT / "docs/precision.md").read_text(encoding="utf-8")
    program, shown = re.search(
        r"```python\n(import torch.*?)```\n\n```\n(.*?)```", text, re.S
    ).groups()
    exec(compile(program, "docs/precision.md", "exec"), {})
    assert capsys.readouterr().out == shown


def test_the_readmes_table_lists_what_the_registry_has():
    there = {}
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3:
            there[cells[0]] = cells[1].lower().replace("-", "")
    for row, table in (
        ("directions", registry.DIRECTIONS),
        ("engines", registry.ENGINES),
        ("estimators", registry.ESTIMATORS),
        ("updates", registry.UPDATES),
    ):
        for name in table:
            assert name in there[row], f"the README's {row} do not mention {name}"


def test_the_page_of_objectives_has_what_the_registry_has(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    publish = importlib.import_module("docs.publish")
    page = publish.PAGE.read_text(encoding="utf-8")
    for block, table in publish.tables().items():
        current = f"<!-- {block} -->\n{table}<!-- /{block} -->"
        assert current in page, f"{block}: run python -m docs.publish"


def test_the_objectives_of_the_page_work(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        objectives, "_metrics", {m.name: m for m in objectives.objectives().values()}
    )
    names = {}
    for code in blocks("docs/objectives.md"):
        exec(compile(code, "docs/objectives.md", "exec"), names)
    check_objective(names["objective"])
    metric = zoopt.get_objective("polite(word='thanks')")
    assert metric(["thanks", "please"], [{"prompt": "Tea?"}] * 2) == 0.5
    assert "objective: cost" in (tmp_path / "runs/run/config.yaml").read_text("utf-8")


def test_links_between_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!http|mailto|#)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
