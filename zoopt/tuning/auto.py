"""``lr="auto"`` and ``eps="auto"``: rates from a few probes and a race of short trials.

ε is the largest scale at which central differences still agree with those at a third of it
(:mod:`zoopt.tuning.slopes`). Slope and curvature there say where learning rates begin to be too
large, and a race (:mod:`zoopt.tuning.race`) finds the best below. The winner's trial is the
beginning of the run, so its steps are not made again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zoopt import checkpoint, trajectory
from zoopt.comparison import Comparison
from zoopt.estimators import ZOEstimator
from zoopt.interfaces import GradientEstimate
from zoopt.optimizer import ZOOptimizer
from zoopt.probing import NonFiniteLossError
from zoopt.tuning.folder import Metrics
from zoopt.tuning.guard import Guard
from zoopt.tuning.race import Lap, laps_of, race
from zoopt.tuning.recovery import rebuild
from zoopt.tuning.settings import AUTO, Settings
from zoopt.tuning.slopes import LADDER, Ladder, Slopes, largest_rate
from zoopt.tuning.stepping import Stepper

_BATCHES = 4
"""Batches whose slopes are measured, and on which trials are scored; twice as many in the end."""


@dataclass(frozen=True)
class Choice:
    """The rates that were chosen, what for, and at what cost.

    Attributes:
        eps: the perturbation scale.
        lr: the learning rate.
        agreement: for each scale of the ladder, how far slopes agree with those a third below;
            empty where eps was given.
        laps: the trials; empty where lr was given.
        forwards: evaluations of a minibatch that all this took, those of the winner's trial, with
            which the run begins, left out.
    """

    eps: float
    lr: float
    agreement: dict[str, float]
    laps: tuple[Lap, ...]
    forwards: int

    def applied(self, settings: Settings) -> Settings:
        """The settings with these rates."""
        return replace(settings, lr=self.lr, eps=self.eps)

    @classmethod
    def read(cls, path: Path) -> Choice | None:
        """What was chosen in an earlier session of a run; None where nothing was yet."""
        if not path.exists():
            return None
        held = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**held, "laps": tuple(Lap(**lap) for lap in held["laps"])})

    def write(self, path: Path) -> None:
        """Keeps the choice, whole or not at all."""
        beside = path.with_name(path.name + ".partial")
        beside.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(beside, path)

    def __str__(self) -> str:
        return f"eps {self.eps:g}, lr {self.lr:g} (found with {self.forwards:,} evaluations)"


class Search:
    """The search for the rates that are not given.

    An interrupted search goes on where it was: its trials have logs of their own.

    Args:
        stepper: makes steps; its optimizer and settings are exchanged meanwhile.
        folder: the search's own folder within the run's.
        optimizer_of: makes the run's optimizer from settings, or one with another estimator.
        said: told of every finding, in words.
    """

    def __init__(
        self,
        stepper: Stepper,
        folder: Path,
        optimizer_of: Callable[[Settings, ZOEstimator | None], ZOOptimizer],
        said: Callable[[str], None],
    ) -> None:
        self._stepper, self._folder = stepper, folder
        self._optimizer_of, self._said = optimizer_of, said
        self._settings = stepper.settings
        self._base = folder / "base.safetensors"
        if isinstance(stepper.metric, Comparison):
            raise ValueError(
                f"objective {stepper.metric.name!r} only compares, and lr='auto' and eps='auto' "
                "need numbers: give both, as in eps=0.01, lr=1e-4"
            )

    def run(self) -> Choice:
        """Finds the rates; θ is as it was afterwards.

        Raises:
            ValueError: the objective does not change, or is not finite.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        optimizer = self._optimizer_of(self._settings, None)
        if not self._base.exists():
            checkpoint.save(self._base, optimizer, {})
        try:
            return self._run()
        finally:
            checkpoint.load(self._base, optimizer)

    def adopt(self, choice: Choice, log: Path, metrics: Metrics) -> None:
        """Makes the winner's trial the beginning of the run, if there was a race."""
        if not choice.laps:
            return
        trial, spent = self._trial(choice.lr), metrics.last("forwards") or 0
        for entry in _metrics(trial).entries:
            metrics.append({**entry, "forwards": entry["forwards"] + spent})
        beside = log.with_name(log.name + ".partial")
        shutil.copyfile(trial / trajectory.FILENAME, beside)
        checkpoint.into_place(beside, log)
        self._base.unlink(missing_ok=True)

    def _run(self) -> Choice:
        before = self._stepper.forwards
        slopes, eps = self._eps()
        agreement: dict[str, float] = {}
        if self._settings.eps == AUTO:
            pairs = zip(slopes.scales[1:], slopes.agreement(), strict=True)
            agreement = {f"{scale:g}": found for scale, found in pairs if found > -math.inf}
            self._said(
                f"eps {eps:g}: slopes agree to {agreement[f'{eps:g}']:.3f} with a third of it"
            )
        settings = replace(self._settings, eps=eps)
        if settings.lr != AUTO:
            return Choice(eps, float(settings.lr), agreement, (), self._stepper.forwards - before)
        optimizer = self._optimizer_of(settings, None)
        estimates = [self._estimate(optimizer, k) for k in range(_BATCHES)]
        highest = largest_rate(slopes, eps, [each.coefficients for each in estimates])
        measured = self._stepper.forwards - before
        laps = race(highest, settings.steps, lambda lr, steps: self._go(settings, lr, steps))
        spent = {}
        for lap in laps:
            entries = _metrics(self._trial(lap.lr)).entries
            spent[lap.lr] = entries[-1]["forwards"] if entries else 0
        winner = laps[-1].lr
        scoring = sum(self._judges(lap.steps) for lap in laps[:-1])
        others = sum(count for lr, count in spent.items() if lr != winner)
        self._said(f"lr {winner:g}: the best of {len(spent)} after {laps[-1].steps} steps")
        return Choice(eps, winner, agreement, laps, measured + scoring + others)

    def _eps(self) -> tuple[Slopes, float]:
        """Slopes and curvatures, and the ε to go on with."""
        given = self._settings.eps
        scales = LADDER if given == AUTO else (float(given),)
        engine = self._optimizer_of(self._settings, None).engine.name
        ladder = Ladder(scales, self._settings.direction, engine)
        optimizer = self._optimizer_of(self._settings, ladder)
        losses = [self._estimate(optimizer, k).losses for k in range(_BATCHES)]
        slopes = Slopes.of(scales, losses)
        return slopes, (slopes.best_scale() if given == AUTO else scales[0])

    def _estimate(self, optimizer: ZOOptimizer, step: int) -> GradientEstimate:
        """The optimizer's estimate on a step's batch, at the base weights."""
        self._stepper.optimizer = optimizer
        checkpoint.load(self._base, optimizer)
        return self._stepper.estimate(step)

    def _go(self, settings: Settings, lr: float, steps: int) -> float:
        """Goes on with a trial to a number of steps; gives the objective there, lower is better."""
        folder = self._trial(lr)
        folder.mkdir(exist_ok=True)
        chosen = replace(settings, lr=lr)
        optimizer = self._optimizer_of(chosen, None)
        self._stepper.settings, self._stepper.optimizer = chosen, optimizer
        path, metrics = folder / trajectory.FILENAME, _metrics(folder)
        checkpoint.load(self._base, optimizer)
        held = trajectory.read(path)
        header = trajectory.header_of(optimizer) if held is None else None
        log = trajectory.Trajectory(path, header)
        optimizer.recorder = log.append
        guard = Guard(chosen.clip_ratio)
        restore = lambda: rebuild(path, [self._base], optimizer)  # noqa: E731
        self._stepper.forwards = metrics.entries[-1]["forwards"] if metrics.entries else 0
        try:
            with optimizer.chain():
                for record in held.records[:steps] if held is not None else ():
                    optimizer.repeat(record)
                    guard.see(optimizer.estimated)
                while optimizer.steps < steps:
                    optimizer.clip = guard.bound
                    if optimizer.steps % settings.eval_every == 0:
                        optimizer.settle()  # as the run will, where it evaluates
                    metrics.append(self._stepper.step(restore))
                    guard.see(optimizer.estimated)
            score = self._stepper.score(self._judging(steps))
        except NonFiniteLossError:
            return math.inf
        finally:
            log.close()
        sign = -1.0 if self._stepper.metric.higher_is_better else 1.0
        return sign * score if math.isfinite(score) else math.inf

    def _judging(self, lap: int) -> list[Any]:
        """Training examples that trials are scored on: those of the last batches of the run."""
        end = self._settings.steps
        steps = range(max(0, end - self._judges(lap)), end)
        return [example for step in steps for example in self._stepper.batches(step)]

    def _judges(self, lap: int) -> int:
        return _BATCHES * (2 if lap == laps_of(self._settings.steps)[-1] else 1)

    def _trial(self, lr: float) -> Path:
        return self._folder / f"lr-{lr:g}"


def _metrics(trial: Path) -> Metrics:
    """A trial's lines of steps, those that its log does not have left out."""
    log = trajectory.read(trial / trajectory.FILENAME)
    return Metrics(trial / "metrics.jsonl", len(log.records) if log is not None else 0)
