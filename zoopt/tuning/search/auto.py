"""``lr="auto"`` and ``eps="auto"``: rates from a few probes and a race of short trials.

ε is the scale at which central differences have the least error. The slope, the curvature and the
signal common to batches at this scale give an expected learning rate (``slopes.py``), and a race
(``race.py``) tries rates around it. The winner's trial becomes the beginning of the run, so its
steps are not repeated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from zoopt import trajectory
from zoopt.estimators import ZOEstimator
from zoopt.interfaces import GradientEstimate, NonFiniteLossError
from zoopt.objectives.comparison import Comparison
from zoopt.optimizer import ZOOptimizer
from zoopt.trajectory import checkpoint
from zoopt.tuning.faults.guard import Guard
from zoopt.tuning.folder.metrics_file import Metrics
from zoopt.tuning.folder.recovery import rebuild
from zoopt.tuning.report.learning import reliability
from zoopt.tuning.search.race import Lap, length_of, race
from zoopt.tuning.search.reach import reach
from zoopt.tuning.search.slopes import LADDER, Ladder, Slopes, best_rate
from zoopt.tuning.settings import AUTO, Settings
from zoopt.tuning.stepping import Stepper

_LADDERS = 5
"""Directions along which slopes are measured at all scales."""
_BATCHES = 10
"""Batches whose slope, curvature and signal are measured."""
_JUDGES = 7
"""Batches on which trials are scored."""
_UNKNOWN = 0.3
"""Assumed share of signal if batches cannot be split."""
_LEAST = 0.1
"""The smallest share of signal that so few batches can detect."""


@dataclass(frozen=True)
class Choice:
    """The chosen rates, with the evidence and the cost.

    Attributes:
        eps: the perturbation scale.
        lr: the learning rate.
        errors: error of the slopes at each scale, without scales of infinite error; empty if eps
            was given.
        measured: slope, curvature, signal, and the learning rate expected from them; empty if lr
            was given.
        base: the base model's score, which trials had to beat; lower is better.
        laps: the trials; empty if lr was given.
        forwards: minibatch evaluations of the search, without those of the winner's trial, with
            which the run begins.
    """

    eps: float
    lr: float
    errors: dict[str, float]
    measured: dict[str, float]
    base: float | None
    laps: tuple[Lap, ...]
    forwards: int

    def applied(self, settings: Settings) -> Settings:
        """Returns the settings with these rates."""
        return replace(settings, lr=self.lr, eps=self.eps)

    @classmethod
    def read(cls, path: Path) -> Choice | None:
        """Reads the choice of an earlier session of a run; None if there is none."""
        if not path.exists():
            return None
        held = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**held, "laps": tuple(Lap(**lap) for lap in held["laps"])})

    def write(self, path: Path) -> None:
        """Writes the choice atomically."""
        checkpoint.write_whole(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    def __str__(self) -> str:
        return f"eps {self.eps:g}, lr {self.lr:g} (found with {self.forwards:,} evaluations)"


class Search:
    """The search for the rates that are "auto".

    An interrupted search is resumed, since each trial has its own log.

    Args:
        stepper: makes steps; its optimizer and settings are replaced during the search.
        folder: the search's own folder within the run's.
        optimizer_of: builds the run's optimizer from settings, optionally with another estimator.
        said: called with a message for every finding.
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
        self._judged = 0
        if isinstance(stepper.metric, Comparison):
            raise ValueError(
                f"objective {stepper.metric.name!r} only compares, but lr='auto' and eps='auto' "
                "need numbers: give both, as in eps=0.01, lr=1e-4"
            )

    def run(self) -> Choice:
        """Finds the rates and restores θ.

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
            self._base.unlink()  # a resumed search begins with the base model as well

    def winner(self, choice: Choice) -> Path | None:
        """The folder of the trial with which the run begins; None if there was no race."""
        return self._trial(choice.lr) if choice.laps else None

    def _run(self) -> Choice:
        before = self._stepper.forwards
        eps, errors = self._eps()
        settings = replace(self._settings, eps=eps)
        if settings.lr != AUTO:
            forwards = self._stepper.forwards - before
            return Choice(eps, float(settings.lr), errors, {}, None, (), forwards)
        measured = self._measured(settings)
        self._said(
            f"expected lr {measured['expected']:.3g} (slope {measured['slope']:.3g}, curvature "
            f"{measured['curvature']:.3g}, share of the signal common to batches "
            f"{measured['signal']:.2f}); trying rates around it"
        )
        forwards = self._stepper.forwards - before
        checkpoint.load(self._base, self._stepper.optimizer)
        base = self._score()
        winner, laps = race(measured["expected"], base, lambda lr: self._go(settings, lr))
        if not math.isfinite(min(lap.score for lap in laps)):
            raise ValueError(
                f"the objective was not finite, or diverged, at every learning rate from "
                f"{min(lap.lr for lap in laps):g} to {max(lap.lr for lap in laps):g}: give lr, or "
                "check the objective"
            )
        for lap in laps:
            made = _metrics(self._trial(lap.lr)).last("forwards") or 0
            forwards += 0 if lap is winner else made
        forwards += self._judged
        self._said(f"lr {winner.lr:g}: {winner.score:.4g} after {length_of(settings.steps)} steps")
        return Choice(eps, winner.lr, errors, measured, base, tuple(laps), forwards)

    def _eps(self) -> tuple[float, dict[str, float]]:
        """Returns ε, and the error of the slopes at each scale."""
        if self._settings.eps != AUTO:
            return float(self._settings.eps), {}
        scales, losses = self._finite_ladders()
        slopes = Slopes.of(scales, losses)
        eps, found = slopes.best_scale(), dict(zip(scales, slopes.errors(), strict=True))
        self._said(f"eps {eps:g}: slopes are measured to about {found[eps]:.3g} there")
        return eps, {f"{e:g}": error for e, error in found.items() if error < math.inf}

    def _finite_ladders(self) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
        """Losses along each direction, dropping the largest scales until all are finite."""
        scales: tuple[float, ...] = LADDER
        while True:
            optimizer = self._probing(scales)
            try:
                return scales, [self._estimate(optimizer, k)[0].losses for k in range(_LADDERS)]
            except NonFiniteLossError:
                if len(scales) == 2:
                    raise
                scales = scales[:-1]

    def _measured(self, settings: Settings) -> dict[str, float]:
        """Slope, curvature and signal at the chosen ε, and the expected learning rate."""
        optimizer = self._probing((float(settings.eps),))
        said = [self._estimate(optimizer, k) for k in range(_BATCHES)]
        slopes = Slopes.of((float(settings.eps),), [estimate.losses for estimate, _ in said])
        # Too high a rate costs more than too low a one, and few batches are weak evidence.
        share = reliability([halves for _, halves in said], less=1.0)
        signal = _UNKNOWN if share is None else max(share, _LEAST)
        optimizer = self._optimizer_of(settings, None)
        own = [self._estimate(optimizer, k)[0].coefficients for k in range(2)]
        return {
            "slope": slopes.slope(),
            "curvature": slopes.curvature(),
            "signal": signal,
            "expected": best_rate(slopes, own, signal) / reach(optimizer.update, own),
        }

    def _probing(self, scales: Sequence[float]) -> ZOOptimizer:
        """An optimizer that measures at the given scales, with the run's direction and engine."""
        engine = self._optimizer_of(self._settings, None).engine.name
        return self._optimizer_of(self._settings, Ladder(scales, self._settings.direction, engine))

    def _estimate(
        self, optimizer: ZOOptimizer, step: int
    ) -> tuple[GradientEstimate, dict[str, float]]:
        """The optimizer's estimate on a step's batch, at the base weights."""
        self._stepper.optimizer = optimizer
        checkpoint.load(self._base, optimizer)
        return self._stepper.estimate(step, lambda: checkpoint.load(self._base, optimizer))

    def _score(self) -> float:
        """The objective on the batches for scoring; lower is better."""
        end = self._settings.steps
        steps = range(max(0, end - _JUDGES), end)
        self._judged += len(steps)
        score = self._stepper.score(self._stepper.batches(*steps))
        sign = -1.0 if self._stepper.metric.higher_is_better else 1.0
        return sign * score if math.isfinite(score) else math.inf

    def _go(self, settings: Settings, lr: float) -> float:
        """Runs or resumes a trial; returns the objective at its end, lower is better."""
        folder = self._trial(lr)
        folder.mkdir(exist_ok=True)
        chosen, length = replace(settings, lr=lr), length_of(settings.steps)
        optimizer = self._optimizer_of(chosen, None)
        self._stepper.settings, self._stepper.optimizer = chosen, optimizer
        path, metrics = folder / trajectory.FILENAME, _metrics(folder)
        guard = Guard(chosen.clip_ratio, chosen.surrogate_steps)
        checkpoint.load(self._base, optimizer)
        held = trajectory.read(path)
        log = trajectory.Trajectory(path, trajectory.header_of(optimizer) if held is None else None)
        optimizer.recorder = log.append
        self._stepper.forwards = metrics.last("forwards") or 0
        try:
            with optimizer.chain():
                for record in held.records if held is not None else ():
                    optimizer.repeat(record)
                    guard.see(optimizer.estimated)
                while optimizer.steps < length and not guard.trouble():
                    optimizer.clip = guard.bound
                    if optimizer.steps % settings.eval_every == 0:
                        optimizer.settle()  # as the run will when it evaluates
                    metrics.append(
                        self._stepper.step(lambda: rebuild(path, [self._base], optimizer))
                    )
                    guard.see(optimizer.estimated)
            return math.inf if guard.trouble() else self._score()
        except NonFiniteLossError:
            return math.inf
        finally:
            log.close()

    def _trial(self, lr: float) -> Path:
        return self._folder / f"lr-{lr:g}"


def _metrics(trial: Path) -> Metrics:
    """A trial's metrics, without steps that its log does not have."""
    log = trajectory.read(trial / trajectory.FILENAME)
    return Metrics(trial / "metrics.jsonl", len(log.records) if log is not None else 0)
