"""``zoopt tune --dry-run``: estimates a run's memory and time from one measured step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from zoopt.objectives.metric import Metric
from zoopt.optimizer import ZOOptimizer
from zoopt.parameters.masters import Vectors
from zoopt.probes.randomness import seeded
from zoopt.probes.surroundings import evaluation_mode
from zoopt.support.memory import peak_bytes
from zoopt.support.units import in_bytes, in_time
from zoopt.tasks import Task
from zoopt.tuning.faults.fitting import Fitting
from zoopt.tuning.making import make_stepper
from zoopt.tuning.settings import AUTO, Settings


@dataclass(frozen=True)
class Group:
    """Parameters with the same options; lr and eps are NaN if they are "auto"."""

    tensors: int
    scalars: int
    lr: float
    eps: float


@dataclass(frozen=True)
class DryRun:
    """The memory and time that a run would need.

    Attributes:
        tuned: number of tuned scalars.
        parameters: number of scalars in the model.
        groups: the groups of tuned parameters.
        weights: bytes of the model's parameters and buffers.
        state: bytes of the update rule's state.
        working: peak bytes that a step allocates on top of these, for engine and activations.
        forwards: minibatch evaluations per step.
        step_seconds: time of one step, without compiling kernels.
        compile_seconds: one-time cost of compiling kernels.
        evaluation_seconds: time of one evaluation on the development examples.
        evaluations: number of these evaluations.
        test_seconds: time of the report's evaluations, before and after tuning.
        steps: number of updates.
    """

    tuned: int
    parameters: int
    groups: tuple[Group, ...]
    weights: int
    state: int
    working: int
    forwards: int
    step_seconds: float
    compile_seconds: float
    evaluation_seconds: float
    evaluations: int
    test_seconds: float
    steps: int

    @property
    def searches(self) -> bool:
        """Whether the run begins with a search for lr or eps."""
        return any(math.isnan(rate) for group in self.groups for rate in (group.lr, group.eps))

    @property
    def seconds(self) -> float:
        """Time of the whole run, without the search for lr and eps."""
        steps = self.steps * self.step_seconds + self.compile_seconds
        return steps + self.evaluations * self.evaluation_seconds + self.test_seconds

    @classmethod
    def of(cls, model: torch.nn.Module, task: Task, metric: Metric, settings: Settings) -> DryRun:
        """Measures one step, then restores θ bit for bit.

        The time of an evaluation is extrapolated per example from a separately timed evaluation of
        the step's batch, since only probes share the layers before the tuned parameters. A copy of
        θ is held during the measurement.

        Raises:
            NonFiniteLossError: the objective is not finite.
        """
        automatic = [name for name in ("lr", "eps") if getattr(settings, name) == AUTO]
        # The time of a step does not depend on its rates.
        settings = replace(settings, **dict.fromkeys(automatic, 1e-6))  # type: ignore[arg-type]
        rows = task.batch_size
        fitting = Fitting(lambda: task.batch_size, lambda most: setattr(task, "batch_size", most))
        stepper = make_stepper(model, task, metric, settings, fitting)
        optimizer = stepper.optimizer
        kept = [slot.exact.detach().clone() for slot in optimizer.slots]
        if stepper.from_base:
            with evaluation_mode(model), seeded(settings.seed):
                task.anchor(model, stepper.batches(0))

        def restore() -> None:
            optimizer.settle()
            _put_back(optimizer, kept)
            optimizer.steps = stepper.forwards = 0

        def step() -> dict[str, Any]:
            return stepper.step(restore)

        try:
            first, peak = peak_bytes(step, kept[0].device)
            restore()
            entry = step()
            restore()
            batch = stepper.batches(0)
            started = time.perf_counter()
            stepper.predict(batch)
            a_row = (time.perf_counter() - started) / len(batch)
        finally:
            restore()
            task.batch_size = rows
        calibrating = settings.calibrate_on if task.labels and task.test else 0
        state = _bytes(
            value
            for each in optimizer.state.values()
            for value in each.values()
            if isinstance(value, torch.Tensor)
        )
        return cls(
            tuned=optimizer.d,
            parameters=sum(p.numel() for p in model.parameters()),
            groups=tuple(
                Group(
                    len(group["params"]),
                    sum(p.numel() for p in group["params"]),
                    math.nan if "lr" in automatic else float(group["lr"]),
                    math.nan if "eps" in automatic else float(group["eps"]),
                )
                for group in optimizer.param_groups
            ),
            weights=_bytes([*model.parameters(), *model.buffers()]),
            state=state,
            working=max(0, peak - state),
            forwards=entry["forwards"],
            step_seconds=entry["seconds"],
            compile_seconds=first.get("compile_seconds", 0.0),
            evaluation_seconds=a_row * len(task.dev),
            evaluations=1 + -(-settings.steps // settings.eval_every) if task.dev else 0,
            test_seconds=a_row * (2 * len(task.test) + min(calibrating, len(task.train))),
            steps=settings.steps,
        )

    def account(self) -> dict[str, str]:
        """Formats the numbers as {name: text}."""
        told = {
            "parameters": f"{self.tuned:,} of {self.parameters:,} tuned "
            f"({self.tuned / self.parameters:.2%})"
        }
        for number, group in enumerate(self.groups):
            told[f"group {number}"] = (
                f"{group.scalars:,} in {group.tensors} tensors, lr {_rate(group.lr)}, "
                f"eps {_rate(group.eps)}"
            )
        return told | {
            "memory": f"{in_bytes(self.weights + self.state + self.working)} at the peak: weights "
            f"{in_bytes(self.weights)}, update rule's state {in_bytes(self.state)}, engine and "
            f"forwards {in_bytes(self.working)}",
            "step": f"{self.step_seconds:.3g} s, {self.forwards} minibatch evaluations",
            "time": f"{in_time(self.seconds)}: {self.steps} steps "
            f"{in_time(self.steps * self.step_seconds)}, {self.evaluations} evaluations "
            f"{in_time(self.evaluations * self.evaluation_seconds)}, before and after "
            f"{in_time(self.test_seconds)}, compiling {in_time(self.compile_seconds)}"
            + (", plus the search for lr and eps" if self.searches else ""),
        }


@torch.no_grad()
def _put_back(optimizer: ZOOptimizer, kept: list[torch.Tensor]) -> None:
    for slot, tensor in zip(optimizer.slots, kept, strict=True):
        slot.exact.copy_(tensor)
    Vectors(optimizer.slots).publish()


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _rate(value: float) -> str:
    return AUTO if math.isnan(value) else f"{value:g}"
