"""The tuning loop: tunes a model on an objective, saves what a resume needs, writes the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from zoopt import trajectory
from zoopt.estimators import ZOEstimator
from zoopt.interfaces import NonFiniteLossError
from zoopt.objectives.comparison import Comparison
from zoopt.objectives.metric import Metric
from zoopt.optimizer import ZOOptimizer
from zoopt.probes.randomness import seeded
from zoopt.probes.surroundings import evaluation_mode
from zoopt.tasks import Example, Scores, Task
from zoopt.trajectory import checkpoint
from zoopt.tuning import sinks
from zoopt.tuning.callbacks import Callbacks
from zoopt.tuning.faults.endings import disk_named, terminable
from zoopt.tuning.faults.fitting import Fitting
from zoopt.tuning.faults.guard import Guard
from zoopt.tuning.faults.patience import Patience
from zoopt.tuning.faults.rollbacks import Rollbacks
from zoopt.tuning.folder.identity import identity_of
from zoopt.tuning.folder.recovery import usable_snapshot
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.folder.scores import best_of
from zoopt.tuning.making import make_optimizer, unusual_rate
from zoopt.tuning.report.calibration import class_offsets
from zoopt.tuning.report.console import Console
from zoopt.tuning.report.learning import Learning
from zoopt.tuning.report.page import Report, write_report
from zoopt.tuning.search.auto import Choice, Search
from zoopt.tuning.search.race import length_of
from zoopt.tuning.search.takeover import TakeOver
from zoopt.tuning.settings import Settings
from zoopt.tuning.stepping import Stepper


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        run_dir: the run's folder: report.html, curve.png, metrics.jsonl, trajectory.jsonl, best/.
        stop: why it ended, as {reason: value}.
        steps: number of updates applied.
        best_step: step of the best development score, whose weights the model now holds.
        best_score: that score; None without development examples.
        report: scores on the test examples before and after tuning, with intervals.
    """

    run_dir: Path
    stop: dict[str, Any]
    steps: int
    best_step: int
    best_score: float | None
    report: Report


class Tuner:
    """One run of :func:`tune`."""

    def __init__(
        self,
        model: torch.nn.Module,
        task: Task,
        objective: Metric,
        settings: Settings,
        run_dir: Path,
        job: Mapping[str, Any],
        quiet: bool,
        callbacks: Sequence[Any] = (),
    ) -> None:
        sinks.check(settings.sinks)
        self.model, self.task, self.settings = model, task, settings
        self.metric, self.job = objective, job
        self.optimizer = self._optimizer(settings)
        self.stepper = Stepper(
            model,
            task,
            objective,
            settings,
            self.optimizer,
            Fitting(lambda: task.batch_size, self._limit),
        )
        self.callbacks = Callbacks(callbacks)
        self.folder = RunFolder(run_dir, job, identity_of(task))
        self.console = Console(quiet, live=not isinstance(objective, Comparison))
        self.guard = Guard(
            settings.clip_ratio, settings.surrogate_steps, objective.higher_is_better
        )
        self.take_over = TakeOver(None, ())
        self.rollbacks = Rollbacks(self.folder, self.stepper, self.guard)
        self.callbacks.add(
            Patience(
                lambda: self.folder.metrics.evaluations,
                settings.patience,
                objective.higher_is_better,
            )
        )

    def run(self) -> Result:
        """Runs until the last step or an earlier stop, and returns the result."""
        with terminable(), disk_named(self.folder.path):
            try:
                for sink in sinks.opened(
                    self.settings.sinks, self.folder.path, self.job, self.folder.metrics.entries
                ):
                    self.callbacks.add(sink)
                return self._run()
            finally:
                self.callbacks.close()
                self.folder.release()

    def _run(self) -> Result:
        resumed = self.folder.log is not None
        self.console.start(self.optimizer, self.settings, self.task, resumed)
        if unusual := unusual_rate(self.model, self.settings):
            self.console.warn(unusual)
        before = self._before()
        self._measure_noise()
        self._find_rates()
        header = None
        if self.folder.log is None:
            header = trajectory.header_of(self.optimizer, self.model)
        else:
            trajectory.check_base(self.folder.log.header, self.optimizer, self.model)
        self.log = trajectory.Trajectory(self.folder.trajectory, header)
        self.optimizer.recorder = self.log.append
        stop: dict[str, Any] = {}
        try:
            with self.console.progress(self.settings.steps), self.optimizer.chain():
                self._resume()
                stop = self._steps()
        except KeyboardInterrupt:
            stop = {"interrupted": self.optimizer.steps}
        except NonFiniteLossError as error:
            stop = {"non-finite objective": str(error)}
        finally:
            self.log.close()
        return self._finish(before, stop)

    def _before(self) -> dict[str, Scores]:
        """Scores the base model on the test and some training examples, or reads its scores."""
        task = self.task
        splits = [task.train] if self.stepper.from_base else []
        splits += [task.dev, task.test] if self.metric.from_base else []
        if splits:
            with evaluation_mode(self.model), seeded(self.settings.seed):
                self.stepper.fitting(lambda: task.anchor(self.model, *splits))
        kept = self.folder.before()
        if kept is None:
            calibrating = self._calibrating()
            total = len(self.task.test) + len(calibrating)
            with self.console.work("evaluating the model as it is", total) as advance:
                kept = {
                    "test": self.stepper.predict(self.task.test, advance),
                    "train": self.stepper.predict(calibrating, advance),
                }
            self.folder.keep_before(kept)
        return kept

    def _measure_noise(self) -> None:
        known = self.folder.metrics.last("noise_floor") is not None or self.folder.log is not None
        if not known and not isinstance(self.metric, Comparison):
            noise = self.stepper.noise_floor()
            self.folder.metrics.append(
                {"step": 0, "noise_floor": noise, "forwards": self.stepper.forwards}
            )

    def _find_rates(self) -> None:
        """Finds lr and eps if they are "auto", or reads what an earlier session found."""
        if not self.settings.automatic:
            return
        path, metrics = self.folder.path / "auto.json", self.folder.metrics
        search = Search(self.stepper, self.folder.path / "auto", self._optimizer, self.console.say)
        choice = Choice.read(path)
        if choice is None:
            self.task.batch_size = metrics.last("forward_size") or self.task.batch_size
            with self.console.work("finding lr and eps", 0):
                choice = search.run()
            choice.write(path)
        log = self.folder.log
        if log is None and metrics.last("auto") is None:
            spent = (metrics.last("forwards") or 0) + choice.forwards
            metrics.append({"step": 0, "auto": asdict(choice), "forwards": spent})
        known = log.records if log is not None else ()
        begun = len(known) < length_of(self.settings.steps)
        self.take_over = TakeOver(search.winner(choice) if begun else None, known)
        self.settings = choice.applied(self.settings)
        self.optimizer = self._optimizer(self.settings)
        self.stepper.settings, self.stepper.optimizer = self.settings, self.optimizer
        self.console.say(str(choice), "bold")

    def _resume(self) -> None:
        """Restores an earlier session of the run to where it stopped."""
        snapshot, lost_best = usable_snapshot(
            self.folder, self.metric.higher_is_better, self.console.warn
        )
        if snapshot is not None:
            checkpoint.load(snapshot, self.optimizer)
        if self.folder.log is not None:
            if snapshot is None:  # so that a rollback always has a checkpoint
                checkpoint.save(self.folder.earlier, self.optimizer, {})
            for record in self.folder.log.records[self.optimizer.steps :]:
                self._evaluate_if_due()
                self._keep_best(lost_best)
                self.optimizer.repeat(record)
                self.console.replayed(self.optimizer.steps)
            self.rollbacks.look_back()
        self._keep_best(lost_best)
        self.stepper.forwards = self.folder.metrics.last("forwards") or 0
        self.task.batch_size = self.folder.metrics.last("forward_size") or self.task.batch_size

    def _steps(self) -> dict[str, Any]:
        settings, optimizer = self.settings, self.optimizer
        reason, trouble = "diverged", self._trouble()
        while True:
            if trouble:
                if not self.rollbacks.back(trouble, self.log):
                    return {reason: trouble}
                self.console.warn(f"{trouble}: {self.rollbacks}")
            try:
                self._evaluate_if_due()
                if optimizer.steps >= settings.steps:
                    return {"steps": settings.steps}
                if stop := self.callbacks.stop():
                    return stop
                optimizer.clip = self.guard.bound
                self._step()
                reason, trouble = "diverged", self._trouble()
            except NonFiniteLossError as error:
                reason, trouble = "non-finite objective", str(error)

    def _step(self) -> None:
        """Makes a step, or takes it over from the search, and reports it."""
        entry = self.take_over.step(self.stepper, self.log)
        if entry is None:
            entry = self.stepper.step(self.rollbacks.rebuild)
        self.folder.metrics.append(entry)
        self.console.step(entry)
        self.callbacks.on_step(entry, self.optimizer.steps)
        self.guard.see(self.optimizer.estimated)

    def _trouble(self) -> str:
        """Why the run must roll back, or ""; a run resumed at such a step rolls back as well."""
        return self.guard.trouble() if self.settings.rollbacks else ""

    def _limit(self, rows: int) -> None:
        """Makes forwards smaller, in a resumed run too."""
        self.task.batch_size = rows
        self.folder.metrics.append({"step": self.optimizer.steps, "forward_size": rows})
        self.console.smaller(rows)

    def _calibrating(self) -> Sequence[Example]:
        """The training examples that set the calibrated baseline's class offsets."""
        if not (self.task.labels and self.task.test):
            return []
        train = self.task.train
        return [train[i] for i in range(min(len(train), self.settings.calibrate_on))]

    def _evaluate_if_due(self) -> None:
        """Scores the development examples, saves the best θ, and writes a snapshot for resuming.

        The metrics line is written last: a run killed in between repeats the whole evaluation.
        """
        step = self.optimizer.steps
        due = step % self.settings.eval_every == 0 or step == self.settings.steps
        if not due:
            return
        self.optimizer.settle()  # a resumed run too: the step after must not share a pass
        if step in self.folder.metrics.evaluations:
            return
        entry: dict[str, Any] = {"step": step, "dev": None}
        if self.task.dev:
            entry["dev"] = self.stepper.score(self.task.dev)
            if not math.isfinite(entry["dev"]):
                self.console.warn(
                    f"step {step}: {self.metric.name} of the development examples is "
                    f"{entry['dev']}, which counts as the worst score"
                )
        scores = self.folder.metrics.evaluations | {step: entry["dev"]}
        if step == best_of(scores, self.metric.higher_is_better):
            self.folder.keep_best(self.optimizer, entry["dev"])
        self.log.sync()  # a snapshot must not outlive the steps that led to it
        self.folder.keep_snapshot(self.optimizer, self.guard.sound, step == self.settings.steps)
        self.folder.metrics.append(entry)
        self.console.evaluated(entry, self.metric)
        self.callbacks.on_evaluation(entry, step)

    def _keep_best(self, lost: int) -> None:
        """Writes a lost best checkpoint again when the replay reaches its step.

        Not if a step whose score was lost too has been scored again on the way and is better.
        """
        metrics, step = self.folder.metrics, self.optimizer.steps
        if step == lost == metrics.best_step(self.metric.higher_is_better):
            self.folder.keep_best(self.optimizer, metrics.evaluations[step])

    def _finish(self, before: dict[str, Scores], stop: dict[str, Any]) -> Result:
        """Loads the best θ, scores it, and writes the report and the model."""
        steps = self.optimizer.steps
        best: dict[str, Any] = {"step": steps, "dev": None}
        if not self.task.dev and steps not in self.folder.metrics.evaluations:
            self.folder.keep_best(self.optimizer, None)  # the last one, wherever the run ended
            self.folder.metrics.append(best)
        if self.folder.best.exists():
            best = checkpoint.load(self.folder.best, self.optimizer)
        tests = len(self.task.test)
        with self.console.work("evaluating the tuned model", tests) as advance:
            after = self.stepper.predict(self.task.test, advance)
        checkpoint.export(self.model, self.folder.model)  # before the report, which may fail
        with self.console.work("writing the report", 0):
            calibrating = self._calibrating()
            offsets = None
            if calibrating:
                offsets = class_offsets(before["train"], self.task.references(calibrating))
            with seeded(self.settings.seed):
                report = Report.make(
                    self.task, self.metric, before["test"], after, offsets, best["step"]
                )
            metrics = self.folder.metrics
            learning = Learning.of(metrics.steps.values(), metrics.last("noise_floor") or 0.0)
            eps = float(self.settings.eps)
            hints = learning.advice(self.metric, self.settings.batch_size, eps)
            write_report(self.folder, report, stop, self.optimizer, learning, hints)
        metrics.append({"step": steps, "stop": stop})
        self.console.finished(report, stop, self.folder, learning, hints)
        return Result(self.folder.path, stop, steps, best["step"], best["dev"], report)

    def _optimizer(self, settings: Settings, estimator: ZOEstimator | None = None) -> ZOOptimizer:
        """Builds the optimizer that settings describe, optionally with another estimator."""
        decodes = self.task.gives == "texts"
        return make_optimizer(
            self.model, settings, self.metric.higher_is_better, estimator, decodes
        )
