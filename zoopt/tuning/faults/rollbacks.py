"""Going back: a run that diverges loses some steps, and goes on with half the learning rate."""

from __future__ import annotations

from dataclasses import asdict

from zoopt import trajectory
from zoopt.trajectory import checkpoint
from zoopt.tuning.faults.guard import Guard
from zoopt.tuning.folder.recovery import rebuild
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.stepping import Stepper

_SLOWER = 0.5
"""What each time multiplies the learning rate with."""


class Rollbacks:
    """The times that a run went back. All about them is in the run's log.

    Args:
        folder: the run's files.
        stepper: makes its steps, at the learning rate that is said here.
        guard: judges them.
    """

    def __init__(self, folder: RunFolder, stepper: Stepper, guard: Guard) -> None:
        self._folder, self._stepper, self._guard = folder, stepper, guard
        self._checkpoints = folder.snapshot, folder.earlier
        self._made: tuple[trajectory.Rollback, ...] = ()

    def back(self, why: str, log: trajectory.Trajectory) -> bool:
        """Goes back to where the run was sound; False where that is no help any more.

        That is where the guard says, but not before the best score, nor before the checkpoints.
        Checkpoints of steps that do not count any more go first, then the lines of metrics, then
        the log: a run that is killed in between repeats what the log says.
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
        spent = self._stepper.forwards  # lines of steps that do not count may be lost in a resume
        metrics.append({"step": to, "rollback": asdict(rollback), "forwards": spent})
        log.roll_back(rollback)
        self._rebuild_with_best()
        self._folder.reread()
        self.look_back()
        return True

    def _best_scored(self) -> int:
        """The step with the best score; 0 without scores, when later is not better."""
        metrics = self._folder.metrics
        best = metrics.best_step(self._stepper.metric.higher_is_better)
        return best if best is not None and metrics.evaluations[best] is not None else 0

    def _rebuild_with_best(self) -> None:
        """Makes θ again; and the best checkpoint, where it was of a step that does not count."""
        best = self._folder.metrics.best_step(self._stepper.metric.higher_is_better)
        lost = checkpoint.step_of(self._folder.best, -1) != best

        def passing(step: int) -> None:
            if lost and step == best:
                scores = self._folder.metrics.evaluations
                self._folder.keep_best(self._stepper.optimizer, scores[step])

        rebuild(self._folder.trajectory, self._checkpoints, self._stepper.optimizer, passing)

    def look_back(self) -> None:
        """Takes from the log what the guard should have seen, and how much slower the run is."""
        if self._folder.log is None:
            return
        self._made = self._folder.log.rollbacks
        since = self._made[-1].to if self._made else 0
        self._guard.follow(self._folder.log.records, since, self._stepper.optimizer.estimator)
        self._stepper.slower = _SLOWER ** len(self._made)

    def rebuild(self) -> None:
        """Makes θ again as the log has it."""
        rebuild(self._folder.trajectory, self._checkpoints, self._stepper.optimizer)

    def __str__(self) -> str:
        if not self._made:
            return "no rollbacks"
        last = self._made[-1]
        return (
            f"rolled back from step {last.at} to {last.to}, continuing with "
            f"{self._stepper.slower:g} of the learning rate"
        )
