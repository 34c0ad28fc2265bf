"""A run's console output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from zoopt.objectives.metric import Metric
from zoopt.optimizer import ZOOptimizer
from zoopt.tasks import Task
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.report.learning import Learning
from zoopt.tuning.report.page import Report
from zoopt.tuning.settings import Settings

_SMOOTH = 0.9


class Console:
    """Shows progress on a terminal; otherwise prints one line for each evaluation.

    Args:
        quiet: print nothing.
        live: draw bars on a terminal; disable it if the user types there.
    """

    def __init__(self, quiet: bool = False, live: bool = True) -> None:
        self._out = RichConsole(quiet=quiet, highlight=False, markup=False)
        self._live = live and self._out.is_terminal and not quiet
        self._progress: Progress | None = None
        self._bar: Any = None
        self._smooth: float | None = None
        self._rate: float | None = None
        self._forwards = 0
        self._dev = ""

    def start(self, optimizer: ZOOptimizer, settings: Settings, task: Task, resumed: bool) -> None:
        """Prints what is tuned, and how."""
        self._out.print(
            Text.assemble(
                ("resuming" if resumed else "tuning", "bold"),
                f" {optimizer.d:,} parameters in {len(optimizer.slots)} tensors on ",
                (str(settings.objective), "bold"),
                f": {settings.estimator}, {optimizer.direction.name} directions, "
                f"{optimizer.engine.name} engine, {settings.update}",
            )
        )
        self._out.print(
            f"{len(task.train):,} training, {len(task.dev):,} development, {len(task.test):,} test "
            f"examples; {settings.steps} steps of {settings.batch_size}"
        )

    @contextmanager
    def work(self, doing: str, examples: int) -> Iterator[Callable[[int], None]]:
        """A bar for forwards over examples; yields a function to advance it by a number."""
        if not self._live:
            self._out.print(f"{doing} …")
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
        with self._bars(*columns, TimeRemainingColumn(), transient=True) as bars:
            bar = bars.add_task(doing, total=examples)
            yield lambda done: bars.advance(bar, done)

    @contextmanager
    def progress(self, steps: int) -> Iterator[None]:
        """A progress bar for the steps made within the block."""
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with self._bars(*columns) as self._progress:
            self._bar = self._progress.add_task("", total=steps)
            yield

    def replayed(self, step: int) -> None:
        """Shows that a step of an earlier session was replayed."""
        self._advance(step, "replaying the log")

    def step(self, entry: dict[str, Any]) -> None:
        """Shows a step."""
        if entry.get("compile_seconds", 0.0) >= 0.1:
            self._out.print(f"compiled kernels in {entry['compile_seconds']:.1f} s")
        if entry["value"] is not None:
            self._smooth = _average(self._smooth, entry["value"])
        self._rate = _average(self._rate, 1 / entry["seconds"])
        self._forwards = entry["forwards"]
        train = "" if self._smooth is None else f"train {self._smooth:.4f}"
        self._advance(
            entry["step"],
            f"{train}{self._dev}  {self._rate:.2f} steps/s  {self._forwards:,} forwards",
        )

    def say(self, message: str, style: str = "") -> None:
        """Prints a finding."""
        self._out.print(message, style=style)

    def smaller(self, rows: int) -> None:
        """Tells that memory ran out, and the most rows that a forward has from now on."""
        self._out.print(
            f"out of memory, continuing with smaller forwards: forward_size {rows}", style="yellow"
        )

    def warn(self, message: str) -> None:
        """Prints a warning."""
        self._out.print(message, style="bold yellow")

    def evaluated(self, entry: dict[str, Any], metric: Metric) -> None:
        """Prints an evaluation on the development examples."""
        if entry["dev"] is None:
            return
        self._dev = f"  dev {entry['dev']:.4f}"
        train = "" if self._smooth is None else f"   train {self._smooth:.4f}"
        rate = "" if self._rate is None else f"   {self._rate:.2f} steps/s"
        self._out.print(
            Text.assemble(
                f"step {entry['step']:>5}   dev {metric.name} ",
                (f"{entry['dev']:.4f}", "bold"),
                f"{train}{rate}",
            )
        )

    def finished(
        self,
        report: Report,
        stop: dict[str, Any],
        folder: RunFolder,
        learning: Learning,
        hints: Sequence[str],
    ) -> None:
        """Prints the outcome of the run."""
        reason, value = next(iter(stop.items()))
        self._out.print(f"stopped: {reason} ({value}); best checkpoint: step {report.best_step}")
        if "interrupted" in stop:
            self._out.print("repeat the same call to resume; best/ has the best checkpoint")
        if report.rows:
            self._out.print(report.table())
        self._out.print(f"learning: {learning}")
        for hint in hints:
            self._out.print(hint, style="bold yellow")
        self._out.print(
            f"report {folder.path / 'report.html'}   model {folder.model}   log {folder.trajectory}"
        )

    def _bars(self, *columns: ProgressColumn, **options: Any) -> Progress:
        return Progress(*columns, console=self._out, disable=not self._live, **options)

    def _advance(self, step: int, description: str) -> None:
        if self._progress is not None:
            self._progress.update(self._bar, completed=step, description=description)


def _average(old: float | None, new: float) -> float:
    return new if old is None else _SMOOTH * old + (1 - _SMOOTH) * new
