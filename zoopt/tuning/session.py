"""A session of a run, from the base model to the report; repeating a call begins another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from zoopt.estimators import ZOEstimator
from zoopt.objectives.comparison import Comparison
from zoopt.objectives.metric import Metric
from zoopt.tasks import HeadClassification, Task
from zoopt.tasks.head import name_outputs
from zoopt.tuning import sinks
from zoopt.tuning.base_model import measure_base
from zoopt.tuning.callbacks import Callbacks
from zoopt.tuning.data import check_examples
from zoopt.tuning.ending import Result, finish
from zoopt.tuning.faults.endings import disk_named, terminable
from zoopt.tuning.faults.fitting import Fitting
from zoopt.tuning.faults.patience import Patience
from zoopt.tuning.folder.identity import identity_of
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.loop import Loop
from zoopt.tuning.making import make_stepper, unusual_rate
from zoopt.tuning.report.console import Console
from zoopt.tuning.search.auto import Choice, Search
from zoopt.tuning.search.takeover import TakeOver
from zoopt.tuning.settings import Settings
from zoopt.tuning.stepping import Stepper


class Session:
    """One call of :func:`zoopt.tune`, whose arguments it takes.

    Mistakes in them are raised before anything is written.
    """

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
        check_examples(task)
        self._model, self._task, self._metric = model, task, objective
        self._settings, self._job = settings, job
        self._fitting = Fitting(lambda: task.batch_size, self._limit)
        self._start = self._stepper(settings)
        self._callbacks = Callbacks(callbacks)
        self._folder = RunFolder(run_dir, job, identity_of(task, objective))
        self._metrics = self._folder.metrics
        self._console = Console(quiet, live=not isinstance(objective, Comparison))
        self._callbacks.add(
            Patience(
                lambda: self._metrics.evaluations, settings.patience, objective.higher_is_better
            )
        )

    def run(self) -> Result:
        """Runs until the last step or an earlier stop, and returns the result."""
        folder = self._folder
        with terminable(), disk_named(folder.path):
            try:
                names = self._settings.sinks
                for sink in sinks.opened(names, folder.path, self._job, self._metrics.entries):
                    self._callbacks.add(sink)
                return self._run()
            finally:
                self._callbacks.close()
                folder.release()

    def _run(self) -> Result:
        start, folder, console = self._start, self._folder, self._console
        if isinstance(self._task, HeadClassification):
            name_outputs(self._model, self._task.labels)
        console.start(start.optimizer, self._settings, self._task, folder.log is not None)
        if unusual := unusual_rate(self._model, self._settings):
            console.warn(unusual)
        before = measure_base(start, folder, console)
        # Not earlier: the base model's outputs are those of the first session, bit for bit.
        self._task.batch_size = self._metrics.last("forward_size") or self._task.batch_size
        stepper, take_over = start, TakeOver()
        if self._settings.automatic:
            stepper, take_over = self._with_rates()
        stop = Loop(stepper, folder, console, self._callbacks, take_over).run()
        return finish(stepper, folder, console, before, stop)

    def _with_rates(self) -> tuple[Stepper, TakeOver]:
        """A stepper with the rates that were "auto", and the steps that their search has made.

        The rates are those that an earlier session has found, if it has.
        """
        path, log = self._folder.path / "auto.json", self._folder.log
        search = Search(self._start, self._stepper, self._folder.path / "auto", self._console.say)
        choice = Choice.read(path)
        if choice is None:
            with self._console.work("finding lr and eps", 0):
                choice = search.run()
            choice.write(path)
        if log is None and self._metrics.last("auto") is None:
            spent = (self._metrics.last("forwards") or 0) + choice.forwards
            self._metrics.append({"step": 0, "auto": asdict(choice), "forwards": spent})
        self._console.say(str(choice), "bold")
        trial, known = search.winner(choice), log.records if log is not None else ()
        take_over = TakeOver.of(trial, known) if trial is not None else TakeOver()
        return self._stepper(choice.applied(self._settings)), take_over

    def _stepper(self, settings: Settings, estimator: ZOEstimator | None = None) -> Stepper:
        return make_stepper(
            self._model, self._task, self._metric, settings, self._fitting, estimator
        )

    def _limit(self, rows: int) -> None:
        """Makes forwards smaller, in a resumed run too."""
        self._task.batch_size = rows
        self._metrics.append({"step": self._metrics.last("step") or 0, "forward_size": rows})
        self._console.smaller(rows)
