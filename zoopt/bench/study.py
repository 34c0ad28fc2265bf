"""A study: the plan of its trials, and the file of those that are done.

Every contestant has the same tuning budget: its settings are tried once each, for the full budget
of evaluations, on a seed that is used for nothing else, and the one with the best final score runs
on the seeds that count. A trial that is in the file is not run again.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from zoopt.bench import trial
from zoopt.bench.processes import Died, forked
from zoopt.bench.trial import Contestant, Problem
from zoopt.optimizer import ZOOptimizer

TUNING_SEED = 1_000_003
"""Seed of the trials by which settings are chosen."""

Key = tuple[str, str, str, int, int]
"""Problem, contestant, setting, seed and budget: what makes a trial the same one."""


@dataclass(frozen=True)
class Trial:
    """One line of the plan."""

    problem: Problem
    contestant: Contestant
    setting: Mapping[str, float]
    seed: int
    budget: int

    @property
    def key(self) -> Key:
        """What the file knows it by."""
        setting = json.dumps(dict(self.setting), sort_keys=True)
        return self.problem.name, self.contestant.name, setting, self.seed, self.budget


@dataclass(frozen=True)
class Study:
    """Contestants against each other on problems.

    Attributes:
        problems: what is optimized.
        contestants: what optimizes.
        budget: evaluations of the objective a trial.
        seeds: how many trials count, with seeds from 0.
        file: JSON lines, one a trial.
    """

    problems: Sequence[Problem]
    contestants: Sequence[Contestant]
    budget: int
    seeds: int
    file: Path

    def run(
        self, workers: int = 1, threads: int = 1, progress: Callable[[str], None] | None = None
    ) -> pd.DataFrame:
        """Runs what is missing, ``workers`` trials at a time with ``threads`` threads each.

        Args:
            workers: trials at a time, each in a process of its own.
            threads: torch's threads in each.
            progress: told a line a trial.

        Returns:
            the rows of the trials that count; see :func:`rows`.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        _mend(self.file)
        for plan in (self._tuning, self._counted):
            known = done(self.file)
            missing = [planned for planned in plan() if planned.key not in known]
            self._run(missing, workers, threads, progress or (lambda line: None))
        return rows(self.file)

    def _tuning(self) -> Iterator[Trial]:
        for problem, contestant in self._pairs():
            if len(contestant.settings) > 1:
                for setting in contestant.settings:
                    yield Trial(problem, contestant, setting, TUNING_SEED, self.budget)

    def _counted(self) -> Iterator[Trial]:
        found = done(self.file)
        tuning: dict[tuple[str, str], list[Trial]] = {}
        for t in self._tuning():
            tuning.setdefault((t.problem.name, t.contestant.name), []).append(t)
        for problem, contestant in self._pairs():
            tried = tuning.get((problem.name, contestant.name), [])
            setting = contestant.settings[0]
            if tried:
                setting = min(tried, key=lambda t: _cost(found[t.key])).setting
            for seed in range(self.seeds):
                yield Trial(problem, contestant, setting, seed, self.budget)

    def _pairs(self) -> Iterator[tuple[Problem, Contestant]]:
        for problem in self.problems:
            for contestant in self.contestants:
                if contestant.takes(problem):
                    yield problem, contestant

    def _run(
        self,
        trials: Sequence[Trial],
        workers: int,
        threads: int,
        progress: Callable[[str], None],
    ) -> None:
        if not trials:
            return
        _load()
        tasks = [functools.partial(_row, planned) for planned in trials]
        with self.file.open("a", encoding="utf-8") as file:
            for count, (number, answer) in enumerate(forked(tasks, workers, threads), 1):
                planned = trials[number]
                row = _dead(planned, answer) if isinstance(answer, Died) else answer
                file.write(json.dumps(row) + "\n")
                file.flush()
                progress(
                    f"{count}/{len(trials)} {planned.problem.name} | {planned.contestant.name} "
                    f"{row['setting']} seed {planned.seed}: {row['score']:.4g}, "
                    f"{row['seconds']:.1f} s, {row['stop']}"
                )


def _load() -> None:
    """Has torch import what it imports at a first step, before trials fork and are measured."""
    x = torch.nn.Parameter(torch.zeros(1))
    ZOOptimizer([x]).step(lambda: x.sum())


def _row(planned: Trial) -> dict[str, Any]:
    row = trial.run(
        planned.problem, planned.contestant, planned.setting, planned.budget, planned.seed
    )
    return _named(planned, row)


def _dead(planned: Trial, died: Died) -> dict[str, Any]:
    """The row of a trial whose process ended without one."""
    unknown = dict.fromkeys(("score", "evaluations", "forwards", "seconds", "peak_mb"), math.nan)
    algorithm = planned.contestant.name
    return _named(planned, {**unknown, "curve": [], "algorithm": algorithm, "stop": str(died)})


def _named(planned: Trial, row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("problem", "contestant", "setting", "seed", "budget")
    return {**dict(zip(names, planned.key, strict=True)), **row}


def done(file: Path) -> dict[Key, dict[str, Any]]:
    """The trials in a file by their keys."""
    if not file.exists():
        return {}
    found: dict[Key, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row["problem"], row["contestant"], row["setting"], row["seed"], row["budget"]] = row
    return found


def rows(file: Path) -> pd.DataFrame:
    """The trials that count, one a row, with what :func:`zoopt.bench.trial.run` returns.

    ``edge`` names what was chosen at an end of the values that were tried for it, "lr highest": a
    contestant that might do better beyond it. It is empty where nothing was.
    """
    found = list(done(file).values())
    tried: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for row in found:
        if row["seed"] == TUNING_SEED:
            key = row["problem"], row["contestant"], row["budget"]
            tried.setdefault(key, []).append(json.loads(row["setting"]))
    counted = [row for row in found if row["seed"] != TUNING_SEED]
    higher = {row["problem"] for row in found if row.get("higher_is_better")}
    for row in counted:
        settings = tried.get((row["problem"], row["contestant"], row["budget"]), [])
        row["edge"] = _edge(json.loads(row["setting"]), settings)
        row["higher_is_better"] = row["problem"] in higher
    return pd.DataFrame(counted)


def standings(trials: pd.DataFrame) -> pd.DataFrame:
    """Quartiles of the final score over seeds and median costs, the best of a problem first.

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
    made = made.sort_values(["problem", "budget", "order"], kind="stable", ignore_index=True)
    return made.drop(columns=["order", "higher"]).rename(columns={"early": "ended early"})


def _quantile(scores: pd.Series, q: float) -> float:
    """Between the two neighbours, linearly; infinite where either is."""
    low, high = (np.quantile(scores, q, method=m) for m in ("lower", "higher"))
    if not np.isfinite([low, high]).all():
        return float(low if np.isinf(low) else high)
    return float(np.quantile(scores, q))


def _edge(chosen: Mapping[str, float], tried: Sequence[Mapping[str, float]]) -> str:
    ends = []
    for name, value in chosen.items():
        values = {setting[name] for setting in tried}
        if len(values) > 2 and value in (min(values), max(values)):
            ends.append(f"{name} {'lowest' if value == min(values) else 'highest'}")
    return ", ".join(ends)


def _mend(file: Path) -> None:
    """Takes a last line out that an interruption left unfinished."""
    if file.exists():
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            file.write_text(whole, encoding="utf-8")


def _cost(row: Mapping[str, Any]) -> float:
    """A row's score as something to minimize, infinite where there is none."""
    score = float(row["score"])
    if not math.isfinite(score):
        return math.inf
    return -score if row.get("higher_is_better") else score
