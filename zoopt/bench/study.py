"""A study: the plan of its trials, and the file of those that are done.

Every contestant has the same tuning budget: its settings are tried once each, for the full budget
of evaluations, on a seed that is used for nothing else, and the one with the best final score runs
on the seeds that count. A trial that is in the file is not run again.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from zoopt.bench import trial
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

    def run(self, workers: int = 1) -> pd.DataFrame:
        """Runs what is missing, ``workers`` trials at a time with one thread each.

        Returns:
            the rows of the trials that count; see :func:`rows`.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        _mend(self.file)
        self._run([t for t in self._tuning() if t.key not in done(self.file)], workers)
        self._run([t for t in self._counted() if t.key not in done(self.file)], workers)
        return rows(self.file)

    def _tuning(self) -> Iterator[Trial]:
        for problem in self.problems:
            for contestant in self.contestants:
                if len(contestant.settings) > 1:
                    for setting in contestant.settings:
                        yield Trial(problem, contestant, setting, TUNING_SEED, self.budget)

    def _counted(self) -> Iterator[Trial]:
        found = done(self.file)
        tuning: dict[tuple[str, str], list[Trial]] = {}
        for t in self._tuning():
            tuning.setdefault((t.problem.name, t.contestant.name), []).append(t)
        for problem in self.problems:
            for contestant in self.contestants:
                tried = tuning.get((problem.name, contestant.name), [])
                setting = contestant.settings[0]
                if tried:
                    setting = min(tried, key=lambda t: _orderable(found[t.key]["score"])).setting
                for seed in range(self.seeds):
                    yield Trial(problem, contestant, setting, seed, self.budget)

    def _run(self, trials: Sequence[Trial], workers: int) -> None:
        """Each in a process of its own, forked: peak memory is its own, and nothing is pickled."""
        global _planned
        if not trials:
            return
        _planned = trials
        _load()
        context = multiprocessing.get_context("fork")
        with (
            context.Pool(workers, _one_thread, maxtasksperchild=1) as pool,
            self.file.open("a", encoding="utf-8") as file,
        ):
            for row in pool.imap_unordered(_run_planned, range(len(trials))):
                file.write(json.dumps(row) + "\n")
                file.flush()


_planned: Sequence[Trial] = ()


def _one_thread() -> None:
    torch.set_num_threads(1)


def _load() -> None:
    """Has torch import what it imports at a first step, before trials fork and are measured."""
    x = torch.nn.Parameter(torch.zeros(1))
    ZOOptimizer([x]).step(lambda: x.sum())


def _run_planned(number: int) -> dict[str, Any]:
    planned = _planned[number]
    problem, contestant, setting, seed, budget = planned.key
    row = trial.run(
        planned.problem, planned.contestant, planned.setting, planned.budget, planned.seed
    )
    return {
        "problem": problem,
        "contestant": contestant,
        "setting": setting,
        "seed": seed,
        "budget": budget,
        **row,
    }


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
    """The trials that count, one a row, with what :func:`zoopt.bench.trial.run` returns."""
    found = list(done(file).values())
    return pd.DataFrame([row for row in found if row["seed"] != TUNING_SEED])


def standings(trials: pd.DataFrame) -> pd.DataFrame:
    """Quartiles of the final score over seeds and median costs, the best of a problem first.

    Columns: problem, contestant, algorithm, setting, trials, ended early, q1, median, q3,
    evaluations, forwards, seconds and peak_mb.
    """
    table = trials.assign(early=trials["stop"] != "budget").groupby(
        ["problem", "contestant"], as_index=False, sort=False
    )
    made = table.agg(
        algorithm=("algorithm", "first"),
        setting=("setting", "first"),
        trials=("seed", "size"),
        early=("early", "sum"),
        q1=("score", lambda x: x.quantile(0.25)),
        median=("score", "median"),
        q3=("score", lambda x: x.quantile(0.75)),
        evaluations=("evaluations", "median"),
        forwards=("forwards", "median"),
        seconds=("seconds", "median"),
        peak_mb=("peak_mb", "median"),
    )
    made = made.rename(columns={"early": "ended early"})
    return made.sort_values(["problem", "median"], kind="stable", ignore_index=True)


def _mend(file: Path) -> None:
    """Takes a last line out that an interruption left unfinished."""
    if file.exists():
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            file.write_text(whole, encoding="utf-8")


def _orderable(score: float) -> float:
    return score if math.isfinite(score) else math.inf
