"""The end of a run: the best weights, their scores, the saved model and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoopt.probes.randomness import seeded
from zoopt.tasks import Scores
from zoopt.trajectory import checkpoint
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.report.calibration import calibrating, class_offsets
from zoopt.tuning.report.console import Console
from zoopt.tuning.report.learning import Learning
from zoopt.tuning.report.page import Report, write_report
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


def finish(
    stepper: Stepper,
    folder: RunFolder,
    console: Console,
    before: Mapping[str, Scores],
    stop: dict[str, Any],
) -> Result:
    """Loads the best θ, scores it, and writes the model and the report.

    Args:
        stepper: has made the run's steps.
        folder: the run's files.
        console: shows progress and the result.
        before: the base model's scores; see :func:`zoopt.tuning.base_model.measure_base`.
        stop: why the run ended.
    """
    task, optimizer, metrics = stepper.task, stepper.optimizer, folder.metrics
    steps = optimizer.steps
    best: dict[str, Any] = {"step": steps, "dev": None}
    if not task.dev and steps not in metrics.evaluations:
        folder.keep_best(optimizer, None)  # the last one, wherever the run ended
        metrics.append(best)
    if folder.best.exists():
        best = checkpoint.load(folder.best, optimizer)
    with console.work("evaluating the tuned model", len(task.test)) as advance:
        after = stepper.predict(task.test, advance)
    checkpoint.export(stepper.model, folder.model)  # before the report, which may fail
    with console.work("writing the report", 0):
        report = _report(stepper, before, after, best["step"])
        learning = Learning.of(metrics.steps.values(), metrics.last("noise_floor") or 0.0)
        settings = stepper.settings
        hints = learning.advice(stepper.metric, settings.batch_size, float(settings.eps))
        write_report(folder, report, stop, optimizer, learning, hints)
    metrics.append({"step": steps, "stop": stop})
    console.finished(report, stop, folder, learning, hints)
    return Result(folder.path, stop, steps, best["step"], best["dev"], report)


def _report(
    stepper: Stepper, before: Mapping[str, Scores], after: Scores, best_step: int
) -> Report:
    task, settings = stepper.task, stepper.settings
    sample, offsets = calibrating(task, settings.calibrate_on), None
    if sample:
        offsets = class_offsets(before["train"], task.references(sample))
    with seeded(settings.seed):
        return Report.make(task, stepper.metric, before["test"], after, offsets, best_step)
