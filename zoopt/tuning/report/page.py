"""The report: test scores before and after, the learning curve, and changed predictions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from zoopt.objectives.metric import Metric
from zoopt.optimizer import ZOOptimizer
from zoopt.support.html import rendered
from zoopt.tasks import Scores, Task, references_for
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.report.changes import changed
from zoopt.tuning.report.evaluation import Comparison, Estimate, compare, reported_metrics
from zoopt.tuning.report.learning import Learning


@dataclass(frozen=True)
class Row:
    """One metric on the test examples; gains are positive if tuning improved it."""

    metric: str
    higher_is_better: bool
    before: Estimate
    calibrated: Estimate | None
    after: Estimate
    gain: Estimate
    gain_over_calibrated: Estimate | None

    @classmethod
    def make(cls, metric: Metric, found: Comparison) -> Row:
        """Makes a row from a comparison of "before", optionally "calibrated", and "tuned"."""
        return cls(
            metric=metric.name,
            higher_is_better=metric.higher_is_better,
            before=found.values["before"],
            calibrated=found.values.get("calibrated"),
            after=found.values["tuned"],
            gain=found.gains["before", "tuned"],
            gain_over_calibrated=found.gains.get(("calibrated", "tuned")),
        )


@dataclass(frozen=True)
class Report:
    """Scores on the test examples before and after tuning.

    Attributes:
        rows: a row for each metric, the objective's first; empty without test examples.
        changes: examples whose prediction changed.
        tests: number of test examples.
        best_step: step of the evaluated checkpoint.
    """

    rows: tuple[Row, ...]
    changes: tuple[dict[str, Any], ...]
    tests: int
    best_step: int

    @classmethod
    def make(
        cls,
        task: Task,
        objective: Metric,
        before: Scores,
        after: Scores,
        offsets: NDArray[np.float64] | None,
        best_step: int,
    ) -> Report:
        """Computes all metrics with bootstrap intervals.

        Args:
            task: provides the test examples.
            objective: the tuned objective.
            before: the base model's scores of the test examples.
            after: the tuned model's scores.
            offsets: class offsets of the calibrated baseline; None without one.
            best_step: step of the evaluated checkpoint.
        """
        if not task.test:
            return cls((), (), 0, best_step)
        conditions = {"before": before, "tuned": after}
        if offsets is not None:
            conditions = {"before": before, "calibrated": before + offsets, "tuned": after}
        clusters = task.clusters(task.test)
        metrics = reported_metrics(task, objective)
        found = [
            compare(metric, conditions, references_for(task, metric, task.test), clusters)
            for metric in metrics
        ]
        rows = map(Row.make, metrics, found)
        changes = changed(task, objective, found[0], before, after)
        return cls(tuple(rows), tuple(changes), len(task.test), best_step)

    def row(self, metric: str) -> Row:
        """Returns the row of a metric."""
        return next(row for row in self.rows if row.metric == metric)

    def cells(self) -> list[list[str]]:
        """The table as text, header row first."""
        columns = {"before": "before", "calibrated": "calibrated", "after": "tuned", "gain": "gain"}
        columns["gain_over_calibrated"] = "gain over calibrated"
        if self.rows[0].calibrated is None:
            columns = {name: head for name, head in columns.items() if "calibrated" not in name}
        return [
            ["metric", *columns.values()],
            *([row.metric, *(str(getattr(row, name)) for name in columns)] for row in self.rows),
        ]

    def table(self) -> Table:
        """The table for a terminal."""
        heads, *rows = self.cells()
        title = f"{self.tests} test examples, 95 % bootstrap intervals"
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(heads[0], no_wrap=True)
        for head in heads[1:]:
            table.add_column(head, justify="right", overflow="fold")
        for row in rows:
            table.add_row(*(cell.replace(" [", "\n[") for cell in row))
        return table

    def markdown(self) -> str:
        """The table in Markdown."""
        heads, *rows = self.cells()
        rule = ["---", *["---:"] * (len(heads) - 1)]
        return "".join("| " + " | ".join(row) + " |\n" for row in (heads, rule, *rows))


def write_report(
    folder: RunFolder,
    report: Report,
    stop: dict[str, Any],
    optimizer: ZOOptimizer,
    learning: Learning,
    hints: Sequence[str],
) -> None:
    """Writes ``report.html`` (self-contained), ``report.md`` and ``curve.png``."""
    picture = curve(folder, report)
    (folder.path / "curve.png").write_bytes(picture)
    metrics, steps = folder.metrics, folder.metrics.steps
    last = steps[max(steps)] if steps else {}
    page = rendered(
        "zoopt.tuning.report",
        report=report,
        stop=stop,
        learning=learning,
        hints=hints,
        name=folder.path.name,
        curve=base64.b64encode(picture).decode(),
        config=folder.config.read_text(encoding="utf-8"),
        d=optimizer.d,
        steps=len(steps),
        forwards=last.get("forwards", 0),
        found=metrics.last("auto"),
        rollbacks=[entry["rollback"] for entry in metrics.entries if "rollback" in entry],
        seconds=sum(entry.get("seconds", 0.0) for entry in steps.values()),
    )
    (folder.path / "report.html").write_text(page, encoding="utf-8")
    if report.rows:
        (folder.path / "report.md").write_text(report.markdown(), encoding="utf-8")


def curve(folder: RunFolder, report: Report) -> bytes:
    """Plots the learning curve as a PNG: minibatch values, their mean, and development scores."""
    figure = Figure(figsize=(7.2, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = folder.metrics.steps
    valued = {step: e["value"] for step, e in steps.items() if e["value"] is not None}
    if valued:
        x, y = list(valued), list(valued.values())
        window = max(1, len(y) // 20)
        mean = np.convolve(y, np.ones(window) / window, mode="valid")
        axes.plot(x, y, color="#b8c4d6", linewidth=0.8, label="minibatch")
        axes.plot(x[window - 1 :], mean, color="#5b7aa6", label=f"mean of {window}")
    dev = {s: v for s, v in folder.metrics.evaluations.items() if v is not None}
    if dev:
        axes.plot(
            list(dev), list(dev.values()), "o-", color="#c0392b", markersize=4, label="development"
        )
    objective = report.rows[0].metric if report.rows else "objective"
    better = (
        ""
        if not report.rows
        else (", higher is better" if report.rows[0].higher_is_better else ", lower is better")
    )
    axes.axvline(report.best_step, color="#7f8c8d", linestyle=":", linewidth=1)
    axes.set_xlabel("step (best checkpoint dotted)")
    axes.set_ylabel(objective + better)
    axes.grid(alpha=0.25)
    if valued or dev:
        # Not loc="best", which takes seconds to find in a long run.
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
