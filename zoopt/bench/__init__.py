"""Compares optimizers on your problem, at equal budgets.

A problem is a function from a seed to a :class:`Case`; contestants are names
(:mod:`zoopt.bench.contestants`) or :class:`Contestant` objects::

    def case(seed):
        model = make_model(seed)
        return zoopt.bench.Case(model, lambda: loss(model, batch()), lambda: loss(model, held_out))


    table = zoopt.benchmark(case, ["mezo", "nspsa:8", "nevergrad:NGOpt", "pycma"], budget=2000)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from zoopt.bench import report
from zoopt.bench.contestants import contestant
from zoopt.bench.identity import require_same
from zoopt.bench.results import rows, standings
from zoopt.bench.study import Study
from zoopt.bench.trial import Case, Contestant, Problem

__all__ = ["Case", "Contestant", "Problem", "Study", "benchmark", "contestant", "rows", "standings"]


def benchmark(
    case: Callable[[int], Case],
    contestants: Sequence[str | Contestant] = ("spsa", "nspsa:4", "mezo"),
    *,
    budget: int,
    seeds: int = 3,
    folder: str | Path = "bench",
    name: str = "problem",
    workers: int = 1,
) -> pd.DataFrame:
    """Tunes every contestant equally, runs it on some seeds, and returns the standings.

    Args:
        case: makes the problem for a seed.
        contestants: the optimizers to compare.
        budget: evaluations of the objective per trial.
        seeds: final trials per contestant.
        folder: folder of ``trials.jsonl``, from which the same call resumes, and of
            ``report.html`` and ``report.md``, which show all trials in it.
        name: the problem's name in tables and in the file.
        workers: number of parallel trials, each in its own process with one thread.

    Returns:
        The rows of :func:`standings` for these contestants, with this budget.

    Raises:
        ValueError: the folder has trials of another problem of this name.
    """
    made = [contestant(who) if isinstance(who, str) else who for who in contestants]
    folder, problem = Path(folder), Problem(name, case)
    require_same(folder, problem)
    file = folder / "trials.jsonl"
    Study([problem], made, budget, seeds, file).run(workers)
    table = report.write(file, folder, name)
    asked = (table["problem"] == name) & (table["budget"] == budget)
    asked &= table["contestant"].isin([who.name for who in made])
    return table[asked].reset_index(drop=True)
