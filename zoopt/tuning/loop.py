"""The loop of a run: resumes it, makes its steps, and rolls it back when it diverges."""

from __future__ import annotations

from typing import Any

from zoopt import trajectory
from zoopt.interfaces import NonFiniteLossError
from zoopt.trajectory import checkpoint
from zoopt.tuning.callbacks import Callbacks
from zoopt.tuning.evaluating import Evaluations
from zoopt.tuning.faults.guard import Guard
from zoopt.tuning.faults.rollbacks import Rollbacks
from zoopt.tuning.folder.recovery import usable_snapshot
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.report.console import Console
from zoopt.tuning.search.takeover import TakeOver
from zoopt.tuning.stepping import Stepper


class Loop:
    """Makes the steps of a run.

    Args:
        stepper: makes a step.
        folder: the run's files.
        console: shows progress.
        callbacks: are told of each step, and may end the run.
        take_over: steps that need not be made, because a search for rates has made them.
    """

    def __init__(
        self,
        stepper: Stepper,
        folder: RunFolder,
        console: Console,
        callbacks: Callbacks,
        take_over: TakeOver,
    ) -> None:
        self._stepper, self._folder, self._console = stepper, folder, console
        self._callbacks, self._take_over = callbacks, take_over
        self._optimizer, self._settings = stepper.optimizer, stepper.settings
        up = stepper.metric.higher_is_better
        self._guard = Guard(self._settings.clip_ratio, self._settings.surrogate_steps, up)
        self._rollbacks = Rollbacks(folder, stepper, self._guard)
        self._evaluations = Evaluations(stepper, folder, self._guard, console, callbacks)

    def run(self) -> dict[str, Any]:
        """Runs until the last step or an earlier stop; returns why it ended, as {reason: value}."""
        header = None
        if self._folder.log is None:
            header = trajectory.header_of(self._optimizer, self._stepper.model)
        else:
            trajectory.check_base(self._folder.log.header, self._optimizer, self._stepper.model)
        log = trajectory.Trajectory(self._folder.trajectory, header)
        self._optimizer.recorder = log.append
        try:
            with self._console.progress(self._settings.steps), self._optimizer.chain():
                self._resume(log)
                return self._steps(log)
        except KeyboardInterrupt:
            return {"interrupted": self._optimizer.steps}
        except NonFiniteLossError as error:
            return {"non-finite objective": str(error)}
        finally:
            log.close()

    def _resume(self, log: trajectory.Trajectory) -> None:
        """Restores an earlier session of the run to where it stopped."""
        up = self._stepper.metric.higher_is_better
        snapshot, lost_best = usable_snapshot(self._folder, up, self._console.warn)
        if snapshot is not None:
            checkpoint.load(snapshot, self._optimizer)
        if self._folder.log is not None:
            if snapshot is None:  # so that a rollback always has a checkpoint
                checkpoint.save(self._folder.earlier, self._optimizer, {})
            for record in self._folder.log.records[self._optimizer.steps :]:
                self._evaluations.evaluate_if_due(log)
                self._evaluations.keep_again(lost_best)
                self._optimizer.repeat(record)
                self._console.replayed(self._optimizer.steps)
            self._rollbacks.look_back()
        self._evaluations.keep_again(lost_best)
        self._stepper.forwards = self._folder.metrics.last("forwards") or 0

    def _steps(self, log: trajectory.Trajectory) -> dict[str, Any]:
        reason, trouble = "diverged", self._trouble()
        while True:
            if trouble:
                if not self._rollbacks.back(trouble, log):
                    return {reason: trouble}
                self._console.warn(f"{trouble}: {self._rollbacks}")
            try:
                self._evaluations.evaluate_if_due(log)
                if self._optimizer.steps >= self._settings.steps:
                    return {"steps": self._settings.steps}
                if stop := self._callbacks.stop():
                    return stop
                self._step(log)
                reason, trouble = "diverged", self._trouble()
            except NonFiniteLossError as error:
                reason, trouble = "non-finite objective", str(error)

    def _step(self, log: trajectory.Trajectory) -> None:
        """Makes a step, or takes it over from the search, and reports it."""
        self._optimizer.clip = self._guard.bound
        entry = self._take_over.step(self._stepper, log)
        if entry is None:
            entry = self._stepper.step(self._rollbacks.rebuild)
        self._folder.metrics.append(entry)
        self._console.step(entry)
        self._callbacks.on_step(entry, self._optimizer.steps)
        self._guard.see(self._optimizer.estimated)

    def _trouble(self) -> str:
        """Why the run must roll back, or ""; a run resumed at such a step rolls back as well."""
        return self._guard.trouble() if self._settings.rollbacks else ""
