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
        steps: the record of each, and its line of ``metrics.jsonl``.
    """

    def __init__(self, steps: Sequence[tuple[StepRecord, dict[str, Any]]] = ()) -> None:
        self._steps = steps

    @classmethod
    def of(cls, trial: Path, known: Sequence[StepRecord]) -> TakeOver:
        """Reads the steps of a trial.

        Args:
            trial: the trial's folder.
            known: the run's own steps so far. If they differ from the trial's, as after a resume on
                another machine, nothing is taken over.
        """
        try:
            log = trajectory.read(trial / trajectory.FILENAME)
            if log is None or log.records[: len(known)] != tuple(known):
                return cls()
            lines = Metrics(trial / "metrics.jsonl", len(log.records)).steps
        except trajectory.TrajectoryError:
            return cls()  # damaged: the run makes the same steps itself
        numbered = enumerate(log.records, start=1)
        steps = [(record, lines[step]) for step, record in numbered if step in lines]
        return cls([] if len(steps) < len(log.records) else steps)  # lost in a power cut

    def step(self, stepper: Stepper, log: trajectory.Trajectory) -> dict[str, Any] | None:
        """Replays the run's next step from the trial.

        Args:
            stepper: the run's stepper.
            log: the run's log.

        Returns:
            The step's line of ``metrics.jsonl``; None if the run must make the step itself.
        """
        number = stepper.optimizer.steps
        if number >= len(self._steps) or stepper.slower != 1.0:  # a rollback changed the rates
            return None
        record, entry = self._steps[number]
        with deferred_signals():
            log.append(record)
            stepper.optimizer.repeat(record)
        before = self._steps[number - 1][1]["forwards"] if number else 0
        stepper.forwards += entry["forwards"] - before
        return {**entry, "forwards": stepper.forwards}
