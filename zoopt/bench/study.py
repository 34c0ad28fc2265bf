"""A study: plans its trials, and stores the completed ones in a file.

Every contestant has the same tuning budget: its settings are tried once each, for the full budget
of evaluations, on a seed that is used for nothing else, and the one with the best final score runs
on the final seeds. If the best is at an end of its range, a study may try settings beyond it, by
the same rule for all. Trials in the file are not repeated.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from zoopt.bench import trial
from zoopt.bench.processes import Died, forked
from zoopt.bench.ranges import Setting, beyond
from zoopt.bench.results import TUNING_SEED, Key, Whose, cost, done, mend, rows
from zoopt.bench.trial import Contestant, Problem
from zoopt.optimizer import ZOOptimizer


@dataclass(frozen=True)
class Trial:
    """A planned trial."""

    problem: Problem
    contestant: Contestant
    setting: Mapping[str, float]
    seed: int
    budget: int

    @property
    def key(self) -> Key:
        """The trial's key in the file."""
        setting = json.dumps(dict(self.setting), sort_keys=True)
        return self.problem.name, self.contestant.name, setting, self.seed, self.budget

    @property
    def whose(self) -> Whose:
        """Problem, contestant and budget, for which its setting was chosen."""
        return self.problem.name, self.contestant.name, self.budget


@dataclass(frozen=True)
class Study:
    """Compares contestants on problems.

    Attributes:
        problems: the problems.
        contestants: the optimizers.
        budget: evaluations of the objective per trial.
        seeds: number of final trials, with seeds from 0.
        file: JSON lines, one per trial.
        widened: how many times to try a further setting if the best is at an end of its range; see
            :func:`zoopt.bench.ranges.beyond`.
    """

    problems: Sequence[Problem]
    contestants: Sequence[Contestant]
    budget: int
    seeds: int
    file: Path
    widened: int = 0

    def run(
        self, workers: int = 1, threads: int = 1, progress: Callable[[str], None] | None = None
    ) -> pd.DataFrame:
        """Runs the missing trials.

        Args:
            workers: number of parallel trials, each in its own process.
            threads: torch's threads in each.
            progress: called with a line for each trial.

        Returns:
            The rows of the final trials; see :func:`rows`.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        mend(self.file)
        for plan in (*[self._tuning] * (1 + self.widened), self._counted):
            known, trials = done(self.file), list(plan())
            missing = [planned for planned in trials if planned.key not in known]
            self._run(missing, workers, threads, progress or (lambda line: None))
        chosen = {planned.whose: planned.key[2] for planned in trials}
        return rows(self.file, chosen)

    def _tuning(self) -> Iterator[Trial]:
        known = done(self.file)
        for problem, contestant in self._pairs():
            if len(contestant.settings) > 1:
                yield from self._tried(problem, contestant, known)

    def _tried(
        self, problem: Problem, contestant: Contestant, known: Mapping[Key, dict[str, Any]]
    ) -> list[Trial]:
        """The tuning trials of a contestant; further settings depend on completed trials."""
        tried: list[Trial] = []
        more: Sequence[Setting] = contestant.settings
        for _ in range(1 + self.widened):
            tried += [Trial(problem, contestant, s, TUNING_SEED, self.budget) for s in more]
            if any(planned.key not in known for planned in tried):
                break
            more = beyond(_best(tried, known).setting, [planned.setting for planned in tried])
        return tried

    def _counted(self) -> Iterator[Trial]:
        known = done(self.file)
        for problem, contestant in self._pairs():
            setting = contestant.settings[0]
            if len(contestant.settings) > 1:
                setting = _best(self._tried(problem, contestant, known), known).setting
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


def _best(tried: Sequence[Trial], known: Mapping[Key, dict[str, Any]]) -> Trial:
    return min(tried, key=lambda planned: cost(known[planned.key]))


def _load() -> None:
    """Makes torch do the imports of a first step before trials fork and are measured."""
    x = torch.nn.Parameter(torch.zeros(1))
    ZOOptimizer([x]).step(lambda: x.sum())


def _row(planned: Trial) -> dict[str, Any]:
    row = trial.run(
        planned.problem, planned.contestant, planned.setting, planned.budget, planned.seed
    )
    return _named(planned, row)


def _dead(planned: Trial, died: Died) -> dict[str, Any]:
    """The row of a trial whose process ended without a result."""
    unknown = dict.fromkeys(("score", "evaluations", "forwards", "seconds", "peak_mb"), math.nan)
    algorithm = planned.contestant.name
    return _named(planned, {**unknown, "curve": [], "algorithm": algorithm, "stop": str(died)})


def _named(planned: Trial, row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("problem", "contestant", "setting", "seed", "budget")
    return {**dict(zip(names, planned.key, strict=True)), **row}
