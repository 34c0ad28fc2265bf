"""Takes over the steps of the trial that won the race, so that the run need not repeat them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoopt import trajectory
from zoopt.interfaces import StepRecord
from zoopt.support.signals import deferred_signals
from zoopt.tuning.folder.metrics_file import Metrics
from zoopt.tuning.stepping import Stepper


class TakeOver:
    """The steps of a trial that form the beginning of a run.

    They are replayed one by one in place of the run's own steps, so that evaluations, callbacks and
    stopping rules act between them as usual.

    Args:
        trial: the trial's folder; None if there was no race.
        known: the run's own steps so far. If they differ from the trial's, as after a resume on
            another machine, nothing is taken over.
    """

    def __init__(self, trial: Path | None, known: Sequence[StepRecord]) -> None:
        self._records: tuple[StepRecord, ...] = ()
        self._entries: list[dict[str, Any]] = []
        if trial is None:
            return
        try:
            log = trajectory.read(trial / trajectory.FILENAME)
            if log is None or log.records[: len(known)] != tuple(known):
                return
            lines = Metrics(trial / "metrics.jsonl", len(log.records)).steps
        except trajectory.TrajectoryError:
            return  # damaged: the run makes the same steps itself
        for step, record in enumerate(log.records, start=1):
            if step not in lines:  # lost in a power cut
                return
            self._records += (record,)
            self._entries.append(lines[step])

    def step(self, stepper: Stepper, log: trajectory.Trajectory) -> dict[str, Any] | None:
        """Replays the run's next step from the trial.

        Args:
            stepper: the run's stepper.
            log: the run's log.

        Returns:
            The step's line of ``metrics.jsonl``; None if the run must make the step itself.
        """
        number = stepper.optimizer.steps
        if number >= len(self._records) or stepper.slower != 1.0:  # a rollback changed the rates
            return None
        with deferred_signals():
            log.append(self._records[number])
            stepper.optimizer.repeat(self._records[number])
        entry = self._entries[number]
        before = self._entries[number - 1]["forwards"] if number else 0
        stepper.forwards += entry["forwards"] - before
        return {**entry, "forwards": stepper.forwards}
