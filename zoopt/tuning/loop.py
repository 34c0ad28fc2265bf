"""The loop: tune a model on an objective, keep what going on needs, report what came of it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoopt import checkpoint, registry, trajectory
from zoopt.combination import blend
from zoopt.comparison import Comparison
from zoopt.directions import compilation
from zoopt.masters import is_half
from zoopt.metrics import Metric
from zoopt.optimizer import ZOOptimizer
from zoopt.population import Population
from zoopt.probing import NonFiniteLossError, evaluation_mode
from zoopt.seeds import fold
from zoopt.tasks import Example, Scores, Task, TaskObjective, as_needed
from zoopt.tuning.console import Console
from zoopt.tuning.data import Batches
from zoopt.tuning.evaluation import class_offsets
from zoopt.tuning.folder import RunFolder
from zoopt.tuning.learning import Halves, Learning, silent_share
from zoopt.tuning.objective import surrogate_of
from zoopt.tuning.report import Report, write_report
from zoopt.tuning.settings import Settings

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        run_dir: the run's folder: report.html, curve.png, metrics.jsonl, trajectory.jsonl, best/.
        stop: why it ended, as {reason: value}.
        steps: updates applied.
        best_step: the checkpoint with the best development score; the model holds its weights.
        best_score: that score; None without development examples.
        report: before and after on the test examples, with intervals.
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
    ) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.metric = objective
        self.objective = TaskObjective(task, self.metric)
        self.surrogate = surrogate_of(self.metric, settings)
        self.optimizer = make_optimizer(
            model, settings, self.metric.higher_is_better, task.gives == "texts"
        )
        self.batches = Batches(task, settings.batch_size, settings.seed)
        self.folder = RunFolder(run_dir, job)
        self.console = Console(quiet)
        self.halves = Halves()
        self.forwards = 0

    def run(self) -> Result:
        """Runs to the end, or to whatever ends it earlier."""
        resumed = self.folder.log is not None
        self.console.start(self.optimizer, self.settings, self.task, resumed)
        header = None if resumed else trajectory.header_of(self.optimizer)
        if self.folder.log is not None:
            trajectory.check_base(self.folder.log.header, self.optimizer)
        before = self._before()
        log = trajectory.Trajectory(self.folder.trajectory, header)
        self.optimizer.recorder = log.append
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
            log.sync()
            log.close()
        return self._finish(before, stop)

    def _before(self) -> dict[str, Scores]:
        """What the base model says of the development, test and some training examples."""
        if self.metric.from_base:
            task = self.task
            asked = [] if isinstance(self.metric, Comparison) else [task.train]
            with evaluation_mode(self.model), seeded(self.settings.seed):
                task.anchor(self.model, *asked, task.dev, task.test)
        kept = self.folder.before()
        if kept is None:
            calibrating = self._calibrating()
            total = len(self.task.test) + len(calibrating)
            with self.console.work("evaluating the model as it is", total) as advance:
                kept = {
                    "test": self._predict(self.task.test, advance),
                    "train": self._predict(calibrating, advance),
                }
            self.folder.keep_before(kept)
        return kept

    def _resume(self) -> None:
        """Brings a run that was here before to where it stopped."""
        if self.folder.snapshot.exists():
            checkpoint.load(self.folder.snapshot, self.optimizer)
        if self.folder.log is not None:
            for record in self.folder.log.records[self.optimizer.steps :]:
                self._evaluate_if_due()
                self.optimizer.repeat(record)
                self.console.replayed(self.optimizer.steps)
        steps = self.folder.metrics.steps
        self.forwards = steps[max(steps)]["forwards"] if steps else 0

    def _steps(self) -> dict[str, Any]:
        settings, optimizer = self.settings, self.optimizer
        self._measure_noise()
        self._evaluate_if_due()
        while optimizer.steps < settings.steps:
            step, started = optimizer.steps, time.perf_counter()
            compiling = compilation.seconds()
            for group in optimizer.param_groups:
                group["lr"] = settings.lr_at(step)
            batch = self.batches(step)
            with seeded(fold(settings.seed, step)):
                value = self._step(self._at(step), batch)
            compiling = compilation.seconds() - compiling
            entry = {
                "step": optimizer.steps,
                "value": value,
                "lr": settings.lr_at(step),
                "seconds": time.perf_counter() - started - compiling,
                "forwards": self.forwards,
            }
            if optimizer.estimated is not None:
                entry["silent"] = silent_share(optimizer.estimated.coefficients)
                entry["spread"] = max(optimizer.estimated.losses) - min(optimizer.estimated.losses)
                entry |= self.halves.of(optimizer)
            if compiling:
                entry["compile_seconds"] = compiling
            self.folder.metrics.append(entry)
            self.console.step(entry)
            self._evaluate_if_due()
        return {"steps": settings.steps}

    def _at(self, step: int) -> TaskObjective:
        """What a step tunes: the objective, or with a share of its surrogate."""
        share = self.settings.surrogate_share(step)
        if self.surrogate is None or share == 0.0:
            return self.objective
        return TaskObjective(self.task, blend(self.metric, self.surrogate, share))

    def _step(self, objective: TaskObjective, batch: Any) -> float | None:
        if not isinstance(self.metric, Comparison):
            return self.optimizer.step(functools.partial(self._values, objective, batch))
        needs, references = self.metric.needs, self.task.references(batch)
        prefers = self.metric.prefers

        def outputs(population: Population) -> list[Any]:
            self.forwards += population.size
            said = self.task.predict_each(self.model, batch, population)
            return [as_needed(each, needs) for each in said]

        return self.optimizer.step(outputs, compare=lambda a, b: prefers(a, b, references))

    def _values(self, objective: TaskObjective, batch: Any, population: Population) -> list[float]:
        self.forwards += population.size
        said = self.task.predict_each(self.model, batch, population)
        references = objective.references(batch)
        self.halves.see(objective, said, references)
        return [objective.score(scores, references) for scores in said]

    def _measure_noise(self) -> None:
        """How far the objective differs where nothing does: the same θ, batch and random state."""
        known = self.folder.metrics.noise_floor is not None or self.optimizer.steps
        if known or isinstance(self.metric, Comparison):
            return
        twice = []
        for _ in range(2):
            with evaluation_mode(self.model), seeded(self.settings.seed):
                twice.append(self._at(0).value(self.model, self.batches(0)))
        self.forwards += 2
        self.folder.metrics.append({"step": 0, "noise_floor": abs(twice[0] - twice[1])})

    def _predict(self, examples: Sequence[Example], advance: Advance | None = None) -> Scores:
        # Where texts are sampled, every evaluation samples alike.
        with evaluation_mode(self.model), seeded(self.settings.seed):
            return self.task.predict(self.model, examples, advance)

    def _calibrating(self) -> Sequence[Example]:
        """The training examples that choose the calibrated baseline's class offsets."""
        if not (self.task.labels and self.task.test):
            return []
        return self.task.train[: self.settings.calibrate_on]

    def _evaluate_if_due(self) -> None:
        """Scores the development examples, keeps the best θ, and takes a snapshot to resume from.

        The metrics line comes last: a run killed in between does all of it again.
        """
        step = self.optimizer.steps
        due = step % self.settings.eval_every == 0 or step == self.settings.steps
        if not due or step in self.folder.metrics.evaluations:
            return
        self.optimizer.settle()
        dev = self.task.dev
        entry: dict[str, Any] = {"step": step, "dev": None}
        if dev:
            entry["dev"] = self.objective.score(self._predict(dev), self.objective.references(dev))
        if self._is_best(entry["dev"]):
            checkpoint.save(self.folder.best, self.optimizer, entry, state=False)
        if step:
            checkpoint.save(self.folder.snapshot, self.optimizer, {})
        self.folder.metrics.append(entry)
        self.console.evaluated(entry, self.metric)

    def _is_best(self, dev: float | None) -> bool:
        """Whether a development score beats all before it; without one the last is the best."""
        earlier = [score for score in self.folder.metrics.evaluations.values() if score is not None]
        if dev is None or not earlier:
            return True
        return dev > max(earlier) if self.metric.higher_is_better else dev < min(earlier)

    def _finish(self, before: dict[str, Scores], stop: dict[str, Any]) -> Result:
        """Loads the best θ, measures it, and writes report and model."""
        steps = self.optimizer.steps
        best: dict[str, Any] = {"step": steps, "dev": None}
        if self.folder.best.exists():
            best = checkpoint.load(self.folder.best, self.optimizer)
        tests = len(self.task.test)
        with self.console.work("evaluating the tuned model", tests) as advance:
            after = self._predict(self.task.test, advance)
        with self.console.work("writing the report", 0):
            calibrating = self._calibrating()
            offsets = None
            if calibrating:
                offsets = class_offsets(before["train"], self.task.references(calibrating))
            report = Report.make(
                self.task, self.metric, before["test"], after, offsets, best["step"]
            )
            checkpoint.export(self.model, self.folder.model)
            metrics = self.folder.metrics
            learning = Learning.of(metrics.steps.values(), metrics.noise_floor or 0.0)
            hints = learning.advice(self.metric, self.settings.batch_size, self.settings.eps)
            write_report(self.folder, report, stop, self.optimizer, learning, hints)
        self.console.finished(report, stop, self.folder, learning, hints)
        return Result(self.folder.path, stop, steps, best["step"], best["dev"], report)


def make_optimizer(
    model: torch.nn.Module, settings: Settings, maximize: bool, decodes: bool = False
) -> ZOOptimizer:
    """The optimizer that settings describe.

    Args:
        model: what is tuned.
        settings: the run's.
        maximize: whether higher is better.
        decodes: whether a probe generates texts. In half precision overlay, which is the engine
            otherwise, would perturb every matrix anew for each token, so it is copy.
    """
    options = {"eps": settings.eps, "direction": settings.direction, "n": settings.n}
    estimator = registry.make_estimator(settings.estimator, **options)
    engine = estimator.engine if settings.engine == "auto" else settings.engine
    if engine == "auto" and decodes and is_half(model.parameters()):
        engine = "copy"
    return ZOOptimizer(
        model,
        lr=settings.lr,
        estimator=estimator,
        engine=engine,
        update=registry.make_update(settings.update, **settings.update_options),
        weight_decay=settings.weight_decay,
        params=settings.params or None,
        maximize=maximize,
        seed=settings.seed,
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random state set for one step, so that sampling is the same after a resume."""
    with torch.random.fork_rng():
        torch.manual_seed(seed % (1 << 63))
        yield
