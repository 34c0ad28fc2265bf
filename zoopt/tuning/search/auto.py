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
        start: has the run's settings and the base model's θ.
        stepper_of: builds a stepper from other settings, optionally with another estimator.
        folder: the search's own folder within the run's.
        said: called with a message for every finding.

    Raises:
        ValueError: the objective only compares.
    """

    def __init__(
        self,
        start: Stepper,
        stepper_of: Callable[[Settings, ZOEstimator | None], Stepper],
        folder: Path,
        said: Callable[[str], None],
    ) -> None:
        self._start, self._stepper_of, self._settings = start, stepper_of, start.settings
        self._folder, self._said = folder, said
        self._base = folder / "base.safetensors"
        self._measuring = self._judging = 0  # minibatch evaluations so far
        self._metrics: dict[float, Metrics] = {}  # of each trial, by its rate
        if isinstance(start.metric, Comparison):
            raise ValueError(
                f"objective {start.metric.name!r} only compares, but lr='auto' and eps='auto' "
                "need numbers: give both, as in eps=0.01, lr=1e-4"
            )

    def run(self) -> Choice:
        """Finds the rates and restores θ.

        Raises:
            ValueError: the objective does not change, or is not finite.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._base.exists():
            checkpoint.save(self._base, self._start.optimizer, {})
        try:
            return self._run()
        finally:
            checkpoint.load(self._base, self._start.optimizer)
            self._base.unlink()  # a resumed search begins with the base model as well

    def winner(self, choice: Choice) -> Path | None:
        """The folder of the trial with which the run begins; None if there was no race."""
        return self._trial(choice.lr) if choice.laps else None

    def _run(self) -> Choice:
        eps, errors = self._eps()
        settings = replace(self._settings, eps=eps)
        if settings.lr != AUTO:
            return Choice(eps, float(settings.lr), errors, {}, None, (), self._measuring)
        measured = self._measured(settings)
        self._said(
            f"expected lr {measured['expected']:.3g} (slope {measured['slope']:.3g}, curvature "
            f"{measured['curvature']:.3g}, share of the signal common to batches "
            f"{measured['signal']:.2f}); trying rates around it"
        )
        checkpoint.load(self._base, self._start.optimizer)
        base = self._score(self._start)
        winner, laps = race(measured["expected"], base, lambda lr: self._go(settings, lr))
        if not math.isfinite(min(lap.score for lap in laps)):
            raise ValueError(
                f"the objective was not finite, or diverged, at every learning rate from "
                f"{min(lap.lr for lap in laps):g} to {max(lap.lr for lap in laps):g}: give lr, or "
                "check the objective"
            )
        losers = (self._metrics[lap.lr] for lap in laps if lap is not winner)
        racing = sum(metrics.last("forwards") or 0 for metrics in losers) + self._judging
        self._said(f"lr {winner.lr:g}: {winner.score:.4g} after {length_of(settings.steps)} steps")
        forwards = self._measuring + racing
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
            ladder = self._ladder(scales)
            try:
                return scales, [self._estimate(ladder, k)[0].losses for k in range(_LADDERS)]
            except NonFiniteLossError:
                if len(scales) == 2:
                    raise
                scales = scales[:-1]

    def _measured(self, settings: Settings) -> dict[str, float]:
        """Slope, curvature and signal at the chosen ε, and the expected learning rate."""
        ladder = self._ladder((float(settings.eps),))
        said = [self._estimate(ladder, k) for k in range(_BATCHES)]
        slopes = Slopes.of((float(settings.eps),), [estimate.losses for estimate, _ in said])
        # Too high a rate costs more than too low a one, and few batches are weak evidence.
        share = reliability([halves for _, halves in said], less=1.0)
        signal = _UNKNOWN if share is None else max(share, _LEAST)
        stepper = self._stepper_of(settings, None)
        own = [self._estimate(stepper, k)[0].coefficients for k in range(2)]
        return {
            "slope": slopes.slope(),
            "curvature": slopes.curvature(),
            "signal": signal,
            "expected": best_rate(slopes, own, signal) / reach(stepper.optimizer.update, own),
        }

    def _ladder(self, scales: Sequence[float]) -> Stepper:
        """A stepper that measures at the given scales, with the run's direction and engine."""
        engine = self._start.optimizer.engine.name
        return self._stepper_of(self._settings, Ladder(scales, self._settings.direction, engine))

    def _estimate(self, stepper: Stepper, step: int) -> tuple[GradientEstimate, dict[str, float]]:
        """The stepper's estimate on a step's batch, at the base weights."""
        checkpoint.load(self._base, stepper.optimizer)
        before = stepper.forwards
        try:
            return stepper.estimate(step, lambda: checkpoint.load(self._base, stepper.optimizer))
        finally:
            self._measuring += stepper.forwards - before

    def _score(self, stepper: Stepper) -> float:
        """The objective on the batches for scoring; lower is better."""
        end = self._settings.steps
        steps = range(max(0, end - _JUDGES), end)
        self._judging += len(steps)
        score = stepper.score(stepper.batches(*steps))
        sign = -1.0 if stepper.metric.higher_is_better else 1.0
        return sign * score if math.isfinite(score) else math.inf

    def _go(self, settings: Settings, lr: float) -> float:
        """Runs or resumes a trial; returns the objective at its end, lower is better."""
        folder = self._trial(lr)
        folder.mkdir(exist_ok=True)
        stepper = self._stepper_of(replace(settings, lr=lr), None)
        optimizer, length = stepper.optimizer, length_of(settings.steps)
        path = folder / trajectory.FILENAME
        held = trajectory.read(path)
        records = held.records if held is not None else ()
        metrics = self._metrics[lr] = Metrics(folder / "metrics.jsonl", len(records))
        guard = Guard(settings.clip_ratio, settings.surrogate_steps)
        checkpoint.load(self._base, optimizer)
        log = trajectory.Trajectory(path, trajectory.header_of(optimizer) if held is None else None)
        optimizer.recorder = log.append
        stepper.forwards = metrics.last("forwards") or 0
        try:
            with optimizer.chain():
                for record in records:
                    optimizer.repeat(record)
                    guard.see(optimizer.estimated)
                while optimizer.steps < length and not guard.trouble():
                    optimizer.clip = guard.bound
                    if optimizer.steps % settings.eval_every == 0:
                        optimizer.settle()  # as the run will when it evaluates
                    metrics.append(stepper.step(lambda: rebuild(path, [self._base], optimizer)))
                    guard.see(optimizer.estimated)
            return math.inf if guard.trouble() else self._score(stepper)
        except NonFiniteLossError:
            return math.inf
        finally:
            log.close()

    def _trial(self, lr: float) -> Path:
        return self._folder / f"lr-{lr:g}"
