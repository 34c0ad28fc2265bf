"""``zoopt bench``: lists problems and contestants, runs a study, writes its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from zoopt.bench import report
from zoopt.bench.contestants import NAMES, contestant
from zoopt.bench.identity import require_same
from zoopt.bench.problems import GROUPS
from zoopt.bench.study import Study
from zoopt.bench.tables import cells
from zoopt.bench.trial import Problem
from zoopt.support.imports import import_from_here, imported
from zoopt.support.names import unknown
from zoopt.support.parser import Parser

CONTESTANTS = ["spsa/rademacher", "nspsa:4/rademacher", "mezo"]


def add_to(commands: Any) -> None:
    """Adds the command to the subcommands of ``zoopt``."""
    parser = Parser()
    commands.add_subcommand("bench", parser, help="compare optimizers")
    actions = parser.add_subcommands(dest="action")
    actions.add_subcommand("list", Parser(), help="list problems and contestants by name")
    running = Parser()
    running.add_argument("name", help="a group of problems, or module:case, a function of a seed")
    running.add_argument(
        "--contestants", nargs="+", default=CONTESTANTS, help="optimizers to compare"
    )
    running.add_argument("--budget", type=int, default=600, help="evaluations per trial")
    running.add_argument("--seeds", type=int, default=3, help="final trials per contestant")
    running.add_argument("--tuning", type=int, default=10, help="settings tried per contestant")
    running.add_argument("--workers", type=int, default=1, help="number of parallel trials")
    running.add_argument("--folder", default="", help="folder of the study (default: bench/NAME)")
    actions.add_subcommand("run", running, help="run or resume a study, and report it")
    reporting = Parser()
    reporting.add_argument("folder", help="folder of a study, or its trials.jsonl")
    actions.add_subcommand("report", reporting, help="write a study's report.html and report.md")


def main(chosen: Namespace) -> int:
    """Runs the chosen action; returns the exit status."""
    commands = {"list": _list, "run": _run, "report": _report}
    return commands[chosen.action](chosen[chosen.action])


def _list(_: Namespace) -> int:
    table = Table("name", "description", box=None)
    for name, group in GROUPS.items():
        table.add_row(name, "\n".join(problem.name for problem in group()))
    table.add_section()
    for name, about in NAMES.items():
        table.add_row(name, about)
    Console(markup=False).print(table)
    return 0


def _run(chosen: Namespace) -> int:
    problems = problems_of(chosen.name)
    who = [contestant(name, trials=chosen.tuning) for name in chosen.contestants]
    folder = Path(chosen.folder or Path("bench") / chosen.name.replace(":", "-"))
    if chosen.name not in GROUPS:
        require_same(folder, problems[0])
    study = Study(problems, who, chosen.budget, chosen.seeds, folder / "trials.jsonl")
    study.run(chosen.workers, progress=lambda line: print(line, flush=True))
    return _written(folder / "trials.jsonl", folder)


def _report(chosen: Namespace) -> int:
    path = Path(chosen.folder).expanduser()
    file = path / "trials.jsonl" if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: is {path} the folder of a study?")
    return _written(file, file.parent)


def _written(file: Path, folder: Path) -> int:
    table = report.write(file, folder)
    for problem, found in table.groupby("problem", sort=False):
        heads, rows = cells(found[["contestant", "setting", "edge", "q1", "median", "q3"]])
        shown = Table(*heads, title=str(problem))
        for row in rows:
            shown.add_row(*row)
        Console(markup=False).print(shown)
    print(f"report in {folder / 'report.html'}")
    return 0


def problems_of(name: str) -> list[Problem]:
    """Returns the problems of a group, or the one that ``module:case`` makes.

    Raises:
        KeyError: there is no such group.
        ModuleNotFoundError: there is no such module.
        ValueError: the module has no function of that name.
    """
    if name in GROUPS:
        return GROUPS[name]()
    if ":" not in name:
        message = unknown("group of problems", name, GROUPS)
        raise KeyError(f"{message} For your own, give module:case, a function of a seed.")
    import_from_here()
    made = imported(name)
    if not callable(made):
        raise ValueError(
            f"{name!r} is not a function: expected one that takes a seed and returns a "
            "zoopt.bench.Case"
        )
    return [Problem(name.partition(":")[2], made)]
