"""Closures: what a user's function returns at each probe, as an engine asks for it."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoopt.interfaces import Engine, NonFiniteLossError
from zoopt.parameters.masters import is_half
from zoopt.probes.outputs import distinct, snapshot
from zoopt.probes.population import Population, takes_population
from zoopt.probes.ranks import Compare, ranks

Closure = Callable[..., Any]
"""``() -> number``, or ``(population) -> K numbers``; see :class:`zoopt.Population`."""

_DEVICES = ("cuda", "mps", "xpu")
"""Where work is queued, and a number is there only when all of it is done."""


@dataclass(frozen=True, kw_only=True)
class ProbedClosure:
    """A closure as an engine calls it: with a population.

    Attributes:
        closure: the user's function.
        engine: what will call it.
        rewind: sets the random state, and the buffers, that all probes of a step see.
        probe: the surroundings of one call.
        maximize: whether its numbers are higher-is-better.
        where: where the run stands, for messages.
        compare: which of two outputs is better, where it returns no numbers.
        group: how many consecutive outputs are compared with one another.
        sides: draws which of two outputs is ``compare``'s first.

    Raises:
        TypeError: the engine evaluates probes together, and the closure takes no population.
    """

    closure: Closure
    engine: Engine
    rewind: Callable[[], None]
    probe: Callable[[], AbstractContextManager[None]]
    maximize: bool
    where: str
    compare: Compare | None
    group: int
    sides: int

    def __post_init__(self) -> None:
        if self.engine.takes_population and not takes_population(self.closure):
            raise TypeError(
                f"engine={self.engine.name!r} evaluates K probes in one call, so its closure takes "
                "a population: opt.step(lambda population: ...), where population.expand(inputs) "
                "goes into the model and K numbers come back; see zoopt.Population. For a closure "
                "without argument use engine='overlay' or 'inplace'."
            )

    def __call__(self, population: Population) -> list[Any]:
        """What the closure returns for K probes: numbers, or outputs where those are compared.

        A number that a GPU has still to compute is left there, so that the next probe is queued
        meanwhile. A copy is: a closure may use its memory again.
        """
        self.rewind()
        torch.clear_autocast_cache()
        with self.probe():
            returned = (
                population.numbers(self.closure(population))
                if takes_population(self.closure)
                else [self.closure()]
            )
        if self.compare is not None:
            return [snapshot(output) for output in returned]
        for value in returned:
            warn_of_half(value)
        return [
            value.detach().clone() if _queued(value) else finite_number(value, self.where)
            for value in returned
        ]

    def losses(self, returned: Sequence[Any]) -> list[float]:
        """The numbers that it returned, to be minimized, or ranks; waits for numbers."""
        if self.compare is not None:
            return ranks(distinct(returned), self.compare, self.group, self.sides)
        sign = -1.0 if self.maximize else 1.0
        return [sign * finite_number(value, self.where) for value in returned]


def warn_of_half(value: Any) -> None:
    """Warns where a value is in half precision."""
    if isinstance(value, Tensor) and is_half([value]):
        warnings.warn(
            f"the objective's value is {value.dtype}, in which most probes of a step "
            "are equal, so that little is learned: compute it in fp32, for example "
            "from logits.float() (with zoopt.ZOTrainer: objective='cross_entropy')",
            stacklevel=2,
        )


def _queued(value: Any) -> bool:
    """Whether it is one number that a GPU may have still to compute."""
    return isinstance(value, Tensor) and value.device.type in _DEVICES and value.numel() == 1


def finite_number(value: Any, where: str) -> float:
    """What a closure returned, as a float.

    Args:
        value: a float, a numpy scalar or a tensor of one element.
        where: where the run stands, for the message.

    Raises:
        TypeError: it is not one number.
        NonFiniteLossError: it is NaN or infinite.
    """
    try:
        number = float(value.item() if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        tensor = isinstance(value, torch.Tensor)
        if isinstance(error, RuntimeError) and not (tensor and value.numel() != 1):
            raise  # what was queued on a GPU failed
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(
                "the objective is an async function, which returns nothing yet: await what it "
                "needs in an ordinary one, for example with asyncio.run(...)"
            ) from None
        shape = f" of shape {tuple(value.shape)}" if tensor else ""
        raise TypeError(
            f"the objective returned {type(value).__name__}{shape}; expected one number "
            "(a float or a 0-d tensor): reduce it, for example with .mean()"
        ) from error
    if not math.isfinite(number):
        raise NonFiniteLossError(
            f"the objective returned {number} at {where}; θ is as it was before the step. A "
            "smaller lr is the usual cure where it grew first, a smaller eps where it came at once."
        )
    return number
