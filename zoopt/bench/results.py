"""Reads the file of trials: completed trials, final trials, and standings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoopt.bench import ranges

TUNING_SEED = 1_000_003
"""Seed of the trials that choose the settings."""

Key = tuple[str, str, str, int, int]
"""Problem, contestant, setting, seed and budget, which identify a trial."""

Whose = tuple[str, str, int]
"""Problem, contestant and budget, for which a setting is chosen."""


def done(file: Path) -> dict[Key, dict[str, Any]]:
    """Reads the trials in a file, by their keys."""
    if not file.exists():
        return {}
    found: dict[Key, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row["problem"], row["contestant"], row["setting"], row["seed"], row["budget"]] = row
    return found


def mend(file: Path) -> None:
    """Removes an incomplete last line, left by an interruption."""
    if file.exists():
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            file.write_text(whole, encoding="utf-8")


def cost(row: Mapping[str, Any]) -> float:
    """A row's score as a number to minimize; infinite if it is not finite."""
    score = float(row["score"])
    if not math.isfinite(score):
        return math.inf
    return -score if row.get("higher_is_better") else score


def rows(file: Path, chosen: Mapping[Whose, str] | None = None) -> pd.DataFrame:
    """The final trials, one per row, with the columns of :func:`zoopt.bench.trial.run`.

    For each contestant only one setting counts: that in ``chosen``, or else that of the last trial
    in the file. Final trials of other settings are from before more were tried.

    ``edge`` names settings chosen at an end of their tried values, such as "lr highest", beyond
    which the contestant might do better; see :func:`zoopt.bench.ranges.ends`.
    """
    found = list(done(file).values())
    tried: dict[Whose, list[dict[str, float]]] = {}
    for row in found:
        if row["seed"] == TUNING_SEED:
            tried.setdefault(_whose(row), []).append(json.loads(row["setting"]))
    counted = counting(found, chosen)
    higher = {row["problem"] for row in found if row.get("higher_is_better")}
    for row in counted:
        at = ranges.ends(json.loads(row["setting"]), tried.get(_whose(row), []))
        row["edge"] = ", ".join(f"{name} {end}" for name, end in at.items())
        row["higher_is_better"] = row["problem"] in higher
    return pd.DataFrame(counted)


def counting(
    trials: Sequence[dict[str, Any]], chosen: Mapping[Whose, str] | None = None
) -> list[dict[str, Any]]:
    """Selects the final trials; see :func:`rows`."""
    counted = [row for row in trials if row["seed"] != TUNING_SEED]
    settings = {_whose(row): row["setting"] for row in counted} | dict(chosen or {})
    return [row for row in counted if row["setting"] == settings[_whose(row)]]


def _whose(row: Mapping[str, Any]) -> Whose:
    return row["problem"], row["contestant"], row["budget"]


def standings(trials: pd.DataFrame) -> pd.DataFrame:
    """Quartiles of the final score over seeds and median costs, best first for each problem.

    A trial without a finite score counts as infinitely bad. Columns: problem, budget, contestant,
    algorithm, setting, edge (see :func:`rows`), trials, ended early, q1, median, q3, evaluations,
    forwards, seconds and peak_mb.
    """
    worst = np.where(trials["higher_is_better"], -np.inf, np.inf)
    score = trials["score"].where(np.isfinite(trials["score"]), worst)
    table = trials.assign(early=trials["stop"] != "budget", score=score).groupby(
        ["problem", "budget", "contestant"], as_index=False, sort=False
    )
    made = table.agg(
        algorithm=("algorithm", "first"),
        setting=("setting", "first"),
        edge=("edge", "first"),
        trials=("seed", "size"),
        early=("early", "sum"),
        q1=("score", lambda x: _quantile(x, 0.25)),
        median=("score", lambda x: _quantile(x, 0.5)),
        q3=("score", lambda x: _quantile(x, 0.75)),
        evaluations=("evaluations", "median"),
        forwards=("forwards", "median"),
        seconds=("seconds", "median"),
        peak_mb=("peak_mb", "median"),
        higher=("higher_is_better", "first"),
    )
    made["order"] = made["median"].where(~made["higher"].astype(bool), -made["median"])
    made["setting"] = [_readable(json.loads(setting)) for setting in made["setting"]]
    made = made.sort_values(["problem", "budget", "order"], kind="stable", ignore_index=True)
    return made.drop(columns=["order", "higher"]).rename(columns={"early": "ended early"})


def _quantile(scores: pd.Series, q: float) -> float:
    """A quantile by linear interpolation; infinite if either neighbour is."""
    ordered = np.sort(np.asarray(scores, dtype=float))
    place = q * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    if low == high or not np.isfinite([low, high]).all():
        return float(low if np.isinf(low) else high)
    return float(low + (high - low) * (place - math.floor(place)))


def _readable(setting: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())
