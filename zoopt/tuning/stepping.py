"""The steps of a run: batch, objective and rates of each, and its line of metrics."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from zoopt.directions.kernel import compilation
from zoopt.interfaces import GradientEstimate
from zoopt.objectives.combination import blend
from zoopt.objectives.comparison import Comparison
from zoopt.objectives.metric import Metric
from zoopt.objectives.resolve import resolve
from zoopt.optimizer import ZOOptimizer
from zoopt.probes.population import Population
from zoopt.probes.randomness import seeded
from zoopt.probes.surroundings import evaluation_mode
from zoopt.seeds import fold
from zoopt.tasks import Example, Scores, Task, TaskObjective, as_needed
from zoopt.tasks.objective import truth_for
from zoopt.tuning.data import Batches
from zoopt.tuning.faults.fitting import Fitting
from zoopt.tuning.report.learning import Halves, silent_share
from zoopt.tuning.settings import Settings

Advance = Callable[[int], None]


class Stepper:
    """Makes a run's steps. A step is determined by its number and the settings.

    Args:
        model: the model to tune.
        task: provides the training examples.
        metric: the objective.
        settings: the run's settings.
        optimizer: makes the updates.
        fitting: retries forwards that run out of memory.

    Attributes:
        forwards: number of minibatch evaluations so far.
        slower: factor of the scheduled learning rate.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        task: Task,
        metric: Metric,
        settings: Settings,
        optimizer: ZOOptimizer,
        fitting: Fitting,
    ) -> None:
        self.model, self.task, self.metric = model, task, metric
        self.settings, self.optimizer, self.fitting = settings, optimizer, fitting
        self.objective = TaskObjective(task, metric)
        self.surrogate = _surrogate_of(metric, settings)
        self.batches = Batches(task, settings.batch_size, settings.seed)
        self.halves = Halves()
        self.forwards = 0
        self.slower = 1.0

    @property
    def from_base(self) -> bool:
        """Whether the objective or its surrogate needs the base model's outputs on a batch.

        False for a comparison, which compares probes with each other.
        """
        tuned = (self.metric, self.surrogate)
        return not isinstance(self.metric, Comparison) and any(m and m.from_base for m in tuned)

    def step(self, restore: Callable[[], None]) -> dict[str, Any]:
        """Makes the optimizer's next step.

        Args:
            restore: rebuilds θ from the log after a step that ran out of memory.

        Returns:
            The step's line of ``metrics.jsonl``.
        """
        step, started = self.optimizer.steps, time.perf_counter()
        compiling = compilation.seconds()

        clip, waiting = self.optimizer.clip, self.optimizer.engine.waiting

        def again() -> None:
            restore()
            if not waiting:  # as after an evaluation: the step must not share a pass
                self.optimizer.settle()
            self.optimizer.clip = clip  # the replayed steps have changed it
            self.halves.forget()

        value = self.fitting(functools.partial(self._update, step), again)
        compiling = compilation.seconds() - compiling
        entry = {
            "step": self.optimizer.steps,
            "value": value,
            "lr": self.optimizer.param_groups[0]["lr"],
            "eps": self.optimizer.param_groups[0]["eps"],
            "seconds": time.perf_counter() - started - compiling,
            "forwards": self.forwards,
        }
        estimated = self.optimizer.estimated
        if estimated is not None:
            entry["silent"] = silent_share(estimated.coefficients)
            entry["spread"] = max(estimated.losses) - min(estimated.losses)
            entry |= self.halves.of(self.optimizer)
        if compiling:
            entry["compile_seconds"] = compiling
        return entry

    def estimate(
        self, step: int, restore: Callable[[], object]
    ) -> tuple[GradientEstimate, dict[str, float]]:
        """Estimates the gradient at the current θ with a step's batch and directions.

        Nothing is updated; the in-place engine restores θ up to rounding.

        Args:
            step: the step whose batch and directions are used.
            restore: restores the current θ after an attempt that ran out of memory.

        Returns:
            The estimate, and its agreement between both halves of the batch; see :class:`Halves`.
        """

        def probe() -> None:
            self.optimizer.steps = step
            self.halves.forget()
            with seeded(fold(self.settings.seed, step)):
                self.optimizer.estimate(self._asked(step))

        self.fitting(probe, restore)
        self.optimizer.settle()
        assert self.optimizer.estimated is not None
        return self.optimizer.estimated, self.halves.of(self.optimizer)

    def noise_floor(self) -> float:
        """The difference of two evaluations with the same θ, batch and random state."""

        def once() -> float:
            with evaluation_mode(self.model), seeded(self.settings.seed):
                return self._at(0).value(self.model, self.batches(0))

        twice = [self.fitting(once) for _ in range(2)]
        self.forwards += 2
        return abs(twice[0] - twice[1])

    def predict(self, examples: Sequence[Example], advance: Advance | None = None) -> Scores:
        """The model's scores of examples; sampling uses the same seed at every evaluation."""

        def predict() -> Scores:
            with evaluation_mode(self.model), seeded(self.settings.seed):
                return self.task.predict(self.model, examples, advance)

        return self.fitting(predict)

    def score(self, examples: Sequence[Example]) -> float:
        """The objective over examples, after settling θ."""
        self.optimizer.settle()
        said, references = self.predict(examples), self.objective.references(examples)
        with seeded(self.settings.seed):
            return self.objective.score(said, references)

    def _at(self, step: int) -> TaskObjective:
        """The objective of a step, blended with its surrogate in the first steps."""
        share = self.settings.surrogate_share(step)
        if self.surrogate is None or share == 0.0:
            return self.objective
        return TaskObjective(self.task, blend(self.metric, self.surrogate, share))

    def _update(self, step: int) -> float | None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr_at(step) * self.slower
            group["eps"] = self.settings.eps_at(step)
        self.optimizer.estimator.n = self.settings.n_at(step)
        with seeded(fold(self.settings.seed, step)):
            if not isinstance(self.metric, Comparison):
                return self.optimizer.step(self._asked(step))
            self._compare(self.metric, self.batches(step))
            return None

    def _asked(self, step: int) -> Callable[[Population], list[float]]:
        """The function that probes evaluate in a step: the objective on the step's batch."""
        return functools.partial(self._values, self._at(step), self.batches(step))

    def _compare(self, metric: Comparison, batch: Any) -> None:
        references = truth_for(self.task, metric, batch)

        def outputs(population: Population) -> list[Any]:
            self.forwards += population.size
            said = self.task.predict_each(self.model, batch, population)
            return [as_needed(each, metric.needs) for each in said]

        self.optimizer.step(outputs, compare=lambda a, b: metric.prefers(a, b, references))

    def _values(self, objective: TaskObjective, batch: Any, population: Population) -> list[float]:
        self.forwards += population.size
        said = self.task.predict_each(self.model, batch, population)
        references = objective.references(batch)
        self.halves.see(objective, said, references)
        return [objective.score(scores, references) for scores in said]


def _surrogate_of(objective: Metric, settings: Settings) -> Metric | None:
    """The smooth objective that a run begins with; None if it begins with the objective itself.

    Raises:
        ValueError: ``surrogate_steps`` is set, but no surrogate is given or known.
    """
    if not settings.surrogate_steps:
        return None
    name = settings.surrogate or objective.smooth
    if not name:
        raise ValueError(
            f"surrogate_steps={settings.surrogate_steps}, but objective {objective.name!r} has no "
            "smooth variant: name a surrogate, as in surrogate='cross_entropy'"
        )
    return resolve(name)
