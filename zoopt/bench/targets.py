"""The progress of each trial, from which plots and summaries are made.

The *gap* of a score is |score − best| / |start − best|, where best is the best finite final score
of any trial on the problem and start the median finite score at the start: 1 without progress, 0
at the best. A target is a gap to be reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TARGETS: tuple[float, ...] = tuple(float(gap) for gap in np.geomspace(0.9, 0.01, 20))
"""Gaps, logarithmically spaced."""

PROFILE = 0.1
"""The gap to be reached in performance profiles."""

PROBLEM = ["problem", "budget"]
"""Columns that identify a problem; different budgets are not compared."""


def gaps(trials: pd.DataFrame) -> pd.DataFrame:
    """Computes the gap at each point of each trial's curve.

    Args:
        trials: see :func:`zoopt.bench.rows`.

    Returns:
        A row for each point of each curve: problem, budget, contestant, seed, evaluations and gap.
        A gap is infinite if the score is not finite, or no score at the start was.
    """
    parts = []
    for (problem, budget), found in trials.groupby(PROBLEM, sort=False):
        sign = -1.0 if found["higher_is_better"].any() else 1.0
        curves = [np.array(curve, dtype=float).reshape(-1, 2) for curve in found["curve"]]
        ys = [sign * curve[:, 1] for curve in curves]
        scores = [np.where(np.isfinite(y), y, np.nan) for y in ys]
        starts = _finite(score[:1] for score in scores)
        ends = _finite(score[-1:] for score in scores)
        start = np.median(starts) if len(starts) else np.nan
        best = np.min([*starts, *ends], initial=np.inf)
        for row, curve, score in zip(found.itertuples(), curves, scores, strict=True):
            gap = np.maximum(score - best, 0) / max(start - best, 1e-300)
            part = {"problem": problem, "budget": budget, "contestant": row.contestant}
            part |= {"seed": row.seed, "evaluations": curve[:, 0]}
            parts.append(pd.DataFrame({**part, "gap": np.nan_to_num(gap, nan=np.inf)}))
    return pd.concat(parts, ignore_index=True)


def _finite(parts: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    joined: NDArray[np.float64] = np.concatenate(list(parts))
    return np.asarray(joined[np.isfinite(joined)])


def reached(trials: pd.DataFrame, targets: Sequence[float] = TARGETS) -> pd.DataFrame:
    """Computes the evaluations after which each trial first reached each target.

    Returns:
        A row for each trial and target: problem, budget, contestant, seed, target and evaluations,
        which are infinite if it was not reached.
    """
    points = gaps(trials)
    index = pd.MultiIndex.from_frame(trials[[*PROBLEM, "contestant", "seed"]])
    parts = []
    for target in targets:
        hit = points[points["gap"] <= target]
        first = hit.groupby([*PROBLEM, "contestant", "seed"])["evaluations"].min()
        parts.append(first.reindex(index).fillna(np.inf).reset_index().assign(target=target))
    return pd.concat(parts, ignore_index=True)


def profile(trials: pd.DataFrame, target: float = PROFILE) -> dict[str, NDArray[np.float64]]:
    """Performance ratios (Dolan and Moré 2002, arXiv cs/0102001), sorted, by contestant.

    The ratio of a contestant on a problem and seed is its number of evaluations to the target
    divided by that of the fastest contestant; infinite if it did not reach the target or was not
    run on the problem. Problems and seeds on which no contestant reached it are left out.
    """
    table = reached(trials, [target]).pivot_table(
        index=[*PROBLEM, "seed"], columns="contestant", values="evaluations", sort=False
    )
    table = table.fillna(np.inf).clip(lower=1)
    fastest = table.min(axis=1)
    ratios = table[np.isfinite(fastest)].div(fastest[np.isfinite(fastest)], axis=0)
    return {str(name): np.sort(ratios[name].to_numpy()) for name in ratios}


def summary(trials: pd.DataFrame) -> pd.DataFrame:
    """Summarizes all problems, the contestant with the most targets first.

    Columns: contestant, number of problems it was run on, how often its median was the best, its
    mean rank among the contestants on the same problems, and the share of targets on these problems
    that its trials reached within the budget.
    """
    final = trials.copy()
    final["score"] = np.where(final["higher_is_better"], -final["score"], final["score"])
    final["score"] = final["score"].where(np.isfinite(final["score"]), np.inf)
    medians = final.groupby([*PROBLEM, "contestant"], as_index=False, sort=False)["score"].median()
    medians["rank"] = medians.groupby(PROBLEM)["score"].rank(method="average")
    hits = reached(trials)
    hits["hit"] = np.isfinite(hits["evaluations"])
    table = medians.groupby("contestant", sort=False).agg(
        problems=("rank", "size"),
        first=("rank", lambda r: int((r == 1).sum())),
        rank=("rank", "mean"),
    )
    table["targets reached"] = hits.groupby("contestant")["hit"].mean()
    table = table.sort_values("targets reached", ascending=False, kind="stable").reset_index()
    return table.rename(columns={"rank": "mean rank"})
