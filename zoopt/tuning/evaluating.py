"""Evaluations during a run: the development score, the best θ, and a snapshot to resume from."""

from __future__ import annotations

import math
from typing import Any

from zoopt.trajectory import Trajectory
from zoopt.tuning.callbacks import Callbacks
from zoopt.tuning.faults.guard import Guard
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.folder.scores import best_of
from zoopt.tuning.report.console import Console
from zoopt.tuning.stepping import Stepper


class Evaluations:
    """Evaluates a run at regular steps.

    Args:
        stepper: makes the run's steps.
        folder: the run's files.
        guard: knows up to which step the run was sound.
        console: shows the scores.
        callbacks: are told of the scores.
    """

    def __init__(
        self,
        stepper: Stepper,
        folder: RunFolder,
        guard: Guard,
        console: Console,
        callbacks: Callbacks,
    ) -> None:
        self._stepper, self._folder, self._guard = stepper, folder, guard
        self._console, self._callbacks = console, callbacks

    def evaluate_if_due(self, log: Trajectory) -> None:
        """Scores the development examples, saves the best θ, and writes a snapshot for resuming.

        The metrics line is written last: a run killed in between repeats the whole evaluation.
        """
        optimizer, settings = self._stepper.optimizer, self._stepper.settings
        step, end = optimizer.steps, optimizer.steps == settings.steps
        if step % settings.eval_every and not end:
            return
        optimizer.settle()  # a resumed run too: the step after must not share a pass
        if step in self._folder.metrics.evaluations:
            return
        entry: dict[str, Any] = {"step": step, "dev": self._score()}
        scores = self._folder.metrics.evaluations | {step: entry["dev"]}
        if step == best_of(scores, self._stepper.metric.higher_is_better):
            self._folder.keep_best(optimizer, entry["dev"])
        log.sync()  # a snapshot must not outlive the steps that led to it
        self._folder.keep_snapshot(optimizer, self._guard.sound, last=end)
        self._folder.metrics.append(entry)
        self._console.evaluated(entry, self._stepper.metric)
        self._callbacks.on_evaluation(entry, step)

    def keep_again(self, lost: int) -> None:
        """Writes a lost best checkpoint again when the replay reaches its step.

        Not if a step whose score was lost too has been scored again on the way and is better.
        """
        metrics, step = self._folder.metrics, self._stepper.optimizer.steps
        if step == lost == metrics.best_step(self._stepper.metric.higher_is_better):
            self._folder.keep_best(self._stepper.optimizer, metrics.evaluations[step])

    def _score(self) -> float | None:
        """The score of the development examples; None if there are none."""
        stepper = self._stepper
        if not stepper.task.dev:
            return None
        score = stepper.score(stepper.task.dev)
        if not math.isfinite(score):
            self._console.warn(
                f"step {stepper.optimizer.steps}: {stepper.metric.name} of the development "
                f"examples is {score}, which counts as the worst score"
            )
        return score
