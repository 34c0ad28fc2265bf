"""A step of a run: which batch, which number, at which rates, and what it says of itself."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from zoopt.probes.surroundings import evaluation_mode
from zoopt.seeds import fold
from zoopt.tasks import Example, Scores, Task, TaskObjective, as_needed
from zoopt.tuning.data import Batches
from zoopt.tuning.faults.fitting import Fitting
from zoopt.tuning.report.learning import Halves, silent_share
from zoopt.tuning.settings import Settings

Advance = Callable[[int], None]


class Stepper:
    """Makes a run's steps. Everything about a step follows from its number and the settings.

    Args:
        model: what is tuned.
        task: its training examples.
        metric: the objective.
        settings: how to tune; may be exchanged between steps.
        optimizer: what steps; may be exchanged between steps.
        fitting: how forwards are made to fit into memory.

    Attributes:
        forwards: evaluations of a minibatch so far.
        slower: what the scheduled learning rate is multiplied with.
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
        """Whether some step measures from what the base model says of its batch.

        Those of a comparison do not: they compare probes.
        """
        tuned = (self.metric, self.surrogate)
        return not isinstance(self.metric, Comparison) and any(m and m.from_base for m in tuned)

    def step(self, restore: Callable[[], None]) -> dict[str, Any]:
        """Makes the optimizer's next step.

        Args:
            restore: makes θ again as the log has it, after a step that memory did not suffice for.

        Returns:
            The step's line of ``metrics.jsonl``.
        """
        step, started = self.optimizer.steps, time.perf_counter()
        compiling = compilation.seconds()

        clip, waiting = self.optimizer.clip, self.optimizer.engine.waiting

        def again() -> None:
            restore()
            if not waiting:  # as after an evaluation: the step must share no pass
                self.optimizer.settle()
            self.optimizer.clip = clip  # repeating steps has set it to theirs
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
        """What the optimizer's probes say at θ as it is, of a step's batch, along its directions.

        Nothing is updated; the in-place engine's θ is restored within rounding.

        Args:
            step: whose batch and directions.
            restore: makes θ again as it is, after an attempt that memory did not suffice for.

        Returns:
            The estimate, and what both halves of the batch say of it; see :class:`Halves`.
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
        """How far the objective differs where nothing does: the same θ, batch and random state."""

        def once() -> float:
            with evaluation_mode(self.model), seeded(self.settings.seed):
                return self._at(0).value(self.model, self.batches(0))

        twice = [self.fitting(once) for _ in range(2)]
        self.forwards += 2
        return abs(twice[0] - twice[1])

    def predict(self, examples: Sequence[Example], advance: Advance | None = None) -> Scores:
        """What the model says of examples. Where it samples, every evaluation samples alike."""

        def predict() -> Scores:
            with evaluation_mode(self.model), seeded(self.settings.seed):
                return self.task.predict(self.model, examples, advance)

        return self.fitting(predict)

    def score(self, examples: Sequence[Example]) -> float:
        """The objective over examples, at the settled θ."""
        self.optimizer.settle()
        return self.objective.score(self.predict(examples), self.objective.references(examples))

    def _at(self, step: int) -> TaskObjective:
        """What a step tunes: the objective, or with a share of its surrogate."""
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
        """What the probes of a step are asked: the objective on the step's batch."""
        return functools.partial(self._values, self._at(step), self.batches(step))

    def _compare(self, metric: Comparison, batch: Any) -> None:
        references = self.task.references(batch)

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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random state set for one step, so that sampling is the same after a resume."""
    with torch.random.fork_rng():
        torch.manual_seed(seed % (1 << 63))
        yield


def _surrogate_of(objective: Metric, settings: Settings) -> Metric | None:
    """The smooth objective that a run begins with, None where it begins with what is meant.

    Raises:
        ValueError: a surrogate is wanted, and neither named nor known.
    """
    if not settings.surrogate_steps:
        return None
    name = settings.surrogate or objective.smooth
    if not name:
        raise ValueError(
            f"surrogate_steps={settings.surrogate_steps}, but objective {objective.name!r} has no "
            "smooth variant of its own: name one, as in surrogate='cross_entropy'"
        )
    return resolve(name)
