"""The report of a study: tables and pictures in ``report.html``, tables in ``report.md``."""

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
        "A target is a share of the way from the start to the best score that any trial had.",
    ),
    "Performance profiles": (
        "profiles",
        plots.profiles,
        "How often a contestant was fastest (left), and how often it got there at all (right).",
    ),
}


def write(
    file: Path, folder: Path, name: str | None = None, shown: Sequence[str] = ()
) -> pd.DataFrame:
    """Writes ``report.html``, which needs no other file, and ``report.md``.

    Args:
        file: a study's ``trials.jsonl``.
        folder: where to.
        name: what the report is called; the folder's name if left out.
        shown: contestants that are drawn in colour; see :func:`zoopt.bench.plots.curves`.

    Returns:
        the standings.

    Raises:
        ValueError: the file has no trial that counts.
    """
    trials = rows(file)
    if trials.empty:
        raise ValueError(f"{file} has no trial that counts yet: run the study first")
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
"""Of the columns of :func:`zoopt.bench.targets.summary`."""


def facts(trials: pd.DataFrame) -> str:
    """What was run, and with what, in a sentence or two."""
    budgets = " or ".join(f"{budget:,}" for budget in sorted(set(trials["budget"])))
    seeds = trials["seed"].nunique()
    return (
        f"{budgets} evaluations of the objective a trial, {seeds} seeds, settings chosen on "
        "another one by equally many trials for each contestant. `edge` names what was chosen at "
        f"an end of the values tried. {versions()}."
    )


def versions() -> str:
    """Python's version and those of what is compared."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found) + f"; {platform.machine()}, {os.cpu_count()} cores"
