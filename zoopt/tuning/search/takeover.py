"""Taking over steps: what the trial that won the race has made, the run need not make again."""

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
    """The steps of a trial that are the beginning of a run.

    They are repeated one by one where the run would make them, so that evaluations, callbacks and
    whatever ends a run come between them as ever.

    Args:
        trial: the trial's folder; None where there was no race.
        known: the run's own steps so far. Where they are others than the trial's, as those of a run
            that went on on another machine may be, nothing is taken over.
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
            return  # damaged: the run makes its steps itself, which are the same
        for step, record in enumerate(log.records, start=1):
            if step not in lines:  # lost in a power cut
                return
            self._records += (record,)
            self._entries.append(lines[step])

    def step(self, stepper: Stepper, log: trajectory.Trajectory) -> dict[str, Any] | None:
        """Repeats the run's next step from the trial.

        Args:
            stepper: the run's.
            log: the run's.

        Returns:
            The step's line of ``metrics.jsonl``; None where the run has to make it.
        """
        number = stepper.optimizer.steps
        if number >= len(self._records) or stepper.slower != 1.0:  # it went back, and on at others
            return None
        with deferred_signals():
            log.append(self._records[number])
            stepper.optimizer.repeat(self._records[number])
        entry = self._entries[number]
        before = self._entries[number - 1]["forwards"] if number else 0
        stepper.forwards += entry["forwards"] - before
        return {**entry, "forwards": stepper.forwards}
