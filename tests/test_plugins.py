"""Objectives of other packages, installed by pip, are found by name; so are the built-in ones."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zoopt
from zoopt.objectives import registry

ROOT = Path(__file__).parents[1]

PROJECT = """
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"
[project]
name = "polite-objectives"
version = "0.1"
[project.entry-points."zoopt.objectives"]
polite = "polite_objectives:polite"
[tool.setuptools]
py-modules = ["polite_objectives"]
"""
MODULE = """
import zoopt

@zoopt.register_objective("polite", higher_is_better=True)
def polite(predictions, references):
    return sum(predictions) / len(predictions)
"""
USE = """
import zoopt
assert "polite" in zoopt.list_objectives()
metric = zoopt.get_objective("polite")
assert metric([0, 1], [0, 0]) == 0.5 and metric.higher_is_better
"""


@pytest.mark.slow
def test_a_third_party_package_is_found_once_it_is_installed(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(PROJECT)
    (package / "polite_objectives.py").write_text(MODULE)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(package)], check=True)
    run = {"env": {"PYTHONPATH": str(site)}, "capture_output": True, "text": True}
    used = subprocess.run([sys.executable, "-c", USE], check=False, **run)
    assert used.returncode == 0, used.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "zoopt", "list", "objectives"], check=True, **run
    )
    assert "polite" in listed.stdout


def test_the_built_in_objectives_are_entry_points_and_zoopt_never_names_their_package():
    assert registry._offered()["f1"].value == "zoopt_objectives.classification:f1"
    for path in (ROOT / "zoopt").rglob("*.py"):
        imported = [
            name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
        ]
        assert not any(name.startswith("zoopt_objectives") for name in imported), path


def test_the_objectives_package_uses_public_names_of_zoopt_alone():
    for path in (ROOT / "objectives").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoopt."):
                raise AssertionError(f"{path} imports {node.module}")
            if isinstance(node, ast.ImportFrom) and node.module == "zoopt":
                assert {alias.name for alias in node.names} <= set(zoopt.__all__), path


def test_importing_zoopt_leaves_heavy_libraries_alone():
    """They would take longer than zoopt itself; what needs them imports them at first use."""
    heavy = {"matplotlib", "nevergrad", "pandas", "scipy.stats", "sklearn", "transformers"}
    code = f"import sys, zoopt; print({heavy} & {{*sys.modules}}); zoopt.tune; zoopt.bench.Case"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_other_project_of_the_same_name_is_pointed_out(tmp_path):
    info = tmp_path / "zoopt-0.4.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoopt\nVersion: 0.4.2\n")
    found = subprocess.run(
        [sys.executable, "-c", "import zoopt"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "other package 'zoopt' (0.4.2)" in found.stderr
    assert "pip uninstall zoopt" in found.stderr


FLOORS = (
    {"interfaces", "seeds", "support"},
    {"directions", "parameters"},
    {"precision", "probes", "updates"},
    {"engines", "estimators", "objectives"},
    {"presets", "tasks"},
    {"recipes", "registry"},
    {"optimizer_state", "testing"},
    {"optimizer"},
    {"trajectory"},
    {"tuning"},
    {"integrations", "runs"},
    {"baselines"},
    {"bench"},
    {"cli"},
    {"__main__"},
)
"""What stands on one floor of docs/design.md imports from floors below it alone."""


def imported(node: ast.AST) -> Iterator[str]:
    """The modules of zoopt that a statement imports, as paths below it."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        names = []
    for name in names:
        package, _, module = name.partition(".")
        if package == "zoopt" and module:
            yield module


def test_imports_run_one_way():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for path in (ROOT / "zoopt").rglob("*.py"):
        inside = path.relative_to(ROOT / "zoopt").parts[0].removesuffix(".py")
        if inside == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for module in imported(node):
                name = module.split(".")[0]
                assert name == inside or floor[name] < floor[inside], f"{path} imports {name}"
