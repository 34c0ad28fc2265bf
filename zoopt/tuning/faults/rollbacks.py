"""Rollbacks: a diverging run drops its last steps and continues at half the learning rate."""

from __future__ import annotations

from dataclasses import asdict

from zoopt import trajectory
from zoopt.trajectory import checkpoint
from zoopt.tuning.faults.guard import Guard
from zoopt.tuning.folder.recovery import rebuild
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.stepping import Stepper

_SLOWER = 0.5
"""Factor of the learning rate at each rollback."""


class Rollbacks:
    """Rolls a run back when it diverges; rollbacks are recorded in its log.

    Args:
        folder: the run's files.
        stepper: makes the steps; its learning rate is reduced here.
        guard: detects divergence.
    """

    def __init__(self, folder: RunFolder, stepper: Stepper, guard: Guard) -> None:
        self._folder, self._stepper, self._guard = folder, stepper, guard
        self._checkpoints = folder.snapshot, folder.earlier
        self._made: tuple[trajectory.Rollback, ...] = ()

    def back(self, why: str, log: trajectory.Trajectory) -> bool:
        """Rolls back to the last sound step; returns False if that is impossible or used up.

        The target is :attr:`Guard.sound`, but not before the best score or the earliest checkpoint.
        Dropped steps are removed from the checkpoints first, then from the metrics, then from the
        log: a run killed in between repeats the steps that the log still has.
        """
        metrics, at = self._folder.metrics, self._stepper.optimizer.steps
        reached = {path: checkpoint.step_of(path, at + 1) for path in self._checkpoints}
        usable = [step for step in reached.values() if step <= at]
        if at == 0 or not usable or len(self._made) >= self._stepper.settings.rollbacks:
            return False
        to = max(min(usable), self._best_scored(), self._guard.sound)
        for path, step in reached.items():
            if step > to:
                path.unlink(missing_ok=True)
        rollback = trajectory.Rollback(to, at, why)
        spent = self._stepper.forwards  # a resume may lose the lines of dropped steps
        metrics.append({"step": to, "rollback": asdict(rollback), "forwards": spent})
        log.roll_back(rollback)
        self._rebuild_with_best()
        self._folder.reread()
        self.look_back()
        return True

    def _best_scored(self) -> int:
        """The step with the best development score; 0 without scores."""
        metrics = self._folder.metrics
        best = metrics.best_step(self._stepper.metric.higher_is_better)
        return best if best is not None and metrics.evaluations[best] is not None else 0

    def _rebuild_with_best(self) -> None:
        """Rebuilds θ, and the best checkpoint if it was of a dropped step."""
        best = self._folder.metrics.best_step(self._stepper.metric.higher_is_better)
        lost = checkpoint.step_of(self._folder.best, -1) != best

        def passing(step: int) -> None:
            if lost and step == best:
                scores = self._folder.metrics.evaluations
                self._folder.keep_best(self._stepper.optimizer, scores[step])

        rebuild(self._folder.trajectory, self._checkpoints, self._stepper.optimizer, passing)

    def look_back(self) -> None:
        """Restores the guard's state and the learning rate factor from the log."""
        if self._folder.log is None:
            return
        self._made = self._folder.log.rollbacks
        since = self._made[-1].to if self._made else 0
        self._guard.follow(self._folder.log.records, since, self._stepper.optimizer.estimator)
        self._stepper.slower = _SLOWER ** len(self._made)

    def rebuild(self) -> None:
        """Rebuilds θ from the log."""
        rebuild(self._folder.trajectory, self._checkpoints, self._stepper.optimizer)

    def __str__(self) -> str:
        if not self._made:
            return "no rollbacks"
        last = self._made[-1]
        return (
            f"rolled back from step {last.at} to {last.to}, continuing with "
            f"{self._stepper.slower:g} of the learning rate"
        )
