"""The report of a study: tables and plots in ``report.html``, tables in ``report.md``."""

from __future__ import annotations

import base64
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from zoopt.bench import plots, tables, targets
from zoopt.bench.results import rows, standings
from zoopt.support.html import rendered

SHOWN = ["contestant", "algorithm", "setting", "edge", "ended early", "q1", "median", "q3"]
"""Columns of a problem's table."""

PACKAGES = ("torch", "numpy", "nevergrad", "cma", "evotorch", "zoopt-torch")

PICTURES = {
    "Scores by evaluations": (
        "curves",
        plots.curves,
        "Medians over seeds, quartiles shaded; thin grey lines are the other contestants.",
    ),
    "Targets reached": (
        "targets",
        plots.targets,
        "A target is a share of the gap between the start and the best score of any trial.",
    ),
    "Performance profiles": (
        "profiles",
        plots.profiles,
        "How often a contestant was fastest (left), and how often it reached the target (right).",
    ),
}


def write(
    file: Path, folder: Path, name: str | None = None, shown: Sequence[str] = ()
) -> pd.DataFrame:
    """Writes ``report.html`` (self-contained) and ``report.md``.

    Args:
        file: a study's ``trials.jsonl``.
        folder: folder to write to.
        name: title of the report; by default the folder's name.
        shown: contestants drawn in colour; see :func:`zoopt.bench.plots.curves`.

    Returns:
        The standings.

    Raises:
        ValueError: the file has no final trial.
    """
    trials = rows(file)
    if trials.empty:
        raise ValueError(f"{file} has no final trials yet: run the study first")
    table = standings(trials)
    name = name or folder.resolve().name
    problems = {
        str(problem): found[SHOWN] for problem, found in table.groupby("problem", sort=False)
    }
    overall = targets.summary(trials)
    about = facts(trials)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        title: (base64.b64encode(draw(trials, shown)).decode(), caption)
        for title, (_, draw, caption) in PICTURES.items()
    }
    page = rendered(
        "zoopt.bench",
        name=name,
        about=about,
        overall=tables.cells(overall, FORMATS),
        problems={problem: tables.cells(rows) for problem, rows in problems.items()},
        pictures=pictures,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
    parts = [f"# {name}", about, tables.markdown(overall, FORMATS)]
    for problem, found in problems.items():
        parts += [f"## {problem}", tables.markdown(found)]
    (folder / "report.md").write_text("\n\n".join(p.strip() for p in parts) + "\n", "utf-8")
    return table


FORMATS = {"mean rank": ".1f", "targets reached": ".2f"}
"""Number formats of the columns of :func:`zoopt.bench.targets.summary`."""


def facts(trials: pd.DataFrame) -> str:
    """Describes the setup of a study in a few sentences."""
    budgets = " or ".join(f"{budget:,}" for budget in sorted(set(trials["budget"])))
    seeds = trials["seed"].nunique()
    return (
        f"{budgets} evaluations of the objective per trial, {seeds} seeds; settings were chosen on "
        "a separate seed with equally many trials per contestant. `edge` names settings at "
        f"an end of the values tried. {versions()}."
    )


def versions() -> str:
    """The versions of Python and of the compared packages, and the machine."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found) + f"; {platform.machine()}, {os.cpu_count()} cores"
