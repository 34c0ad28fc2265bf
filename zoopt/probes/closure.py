"""Closures: the user's function as an engine calls it, and the values that it returns."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoopt.interfaces import Engine, NonFiniteLossError
from zoopt.parameters.masters import is_half
from zoopt.probes.forward_only import forward_only
from zoopt.probes.outputs import distinct, snapshot
from zoopt.probes.population import Population, takes_population
from zoopt.probes.ranks import Compare, ranks

Closure = Callable[..., Any]
"""``() -> number``, or ``(population) -> K numbers``; see :class:`zoopt.Population`."""

_DEVICES = ("cuda", "mps", "xpu")
"""Device types with asynchronous execution, where reading a number waits for queued work."""


@dataclass(frozen=True, kw_only=True)
class ProbedClosure:
    """A closure as an engine calls it: with a population.

    Attributes:
        closure: the user's function.
        engine: the engine that will call it.
        rewind: resets the random state and the buffers to those that all probes of a step see.
        probe: returns a context for one call.
        maximize: whether its numbers are higher-is-better.
        where: the position in the run, for messages.
        compare: compares two outputs, if the closure does not return numbers.
        group: number of consecutive outputs that are compared with one another.
        sides: seed that decides which of two outputs is ``compare``'s first argument.

    Raises:
        TypeError: the engine evaluates probes together, but the closure takes no population.
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
        if self.engine.takes_population and not self._takes_population:
            raise TypeError(
                f"engine={self.engine.name!r} evaluates K probes in one call, so its closure must "
                "take a population: opt.step(lambda population: ...), which passes "
                "population.expand(inputs) to the model and returns K numbers; see "
                "zoopt.Population. For a closure without argument use engine='overlay' or "
                "'inplace'."
            )

    @cached_property
    def _takes_population(self) -> bool:
        return takes_population(self.closure)

    def __call__(self, population: Population) -> list[Any]:
        """The closure's values for K probes: numbers, or outputs if they are compared.

        A number that a GPU may still be computing stays a tensor on the GPU, so that the next probe
        can be queued; it is copied, because a closure may reuse its memory.
        """
        self.rewind()
        torch.clear_autocast_cache()
        with self.probe(), forward_only():
            returned = (
                population.numbers(self.closure(population))
                if self._takes_population
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
        """The returned values as losses to be minimized (or as ranks); waits for the GPU."""
        if self.compare is not None:
            return ranks(distinct(returned), self.compare, self.group, self.sides)
        sign = -1.0 if self.maximize else 1.0
        return [sign * finite_number(value, self.where) for value in returned]


def warn_of_half(value: Any) -> None:
    """Warns if a value is in half precision."""
    if isinstance(value, Tensor) and is_half([value]):
        warnings.warn(
            f"the objective's value is {value.dtype}, too coarse to tell the probes of a step "
            "apart; expected fp32: compute it in fp32, for example from logits.float() (with "
            "zoopt.ZOTrainer: objective='cross_entropy')",
            stacklevel=2,
        )


def _queued(value: Any) -> bool:
    """Whether it is a single number that a GPU may still be computing."""
    return isinstance(value, Tensor) and value.device.type in _DEVICES and value.numel() == 1


def _is_complex(value: Any) -> bool:
    return value.is_complex() if isinstance(value, Tensor) else bool(np.iscomplexobj(value))


def finite_number(value: Any, where: str) -> float:
    """A closure's return value as a finite float.

    Args:
        value: a float, a numpy scalar or a tensor of one element.
        where: the position in the run, for the message.

    Raises:
        TypeError: it is not one number.
        NonFiniteLossError: it is NaN or infinite.
    """
    try:
        if value is np.ma.masked or _is_complex(value):
            raise TypeError("it cannot be compared with another")
        number = float(value.item() if isinstance(value, np.ndarray) else value)
    except OverflowError:
        number = math.inf  # an integer beyond the largest float
    except (TypeError, ValueError, RuntimeError) as error:
        tensor = isinstance(value, torch.Tensor)
        if isinstance(error, RuntimeError) and not (tensor and value.numel() != 1):
            raise  # work queued on a GPU failed
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(
                "the objective is an async function, which returns a coroutine; expected a number: "
                "call the async code in an ordinary function, for example with asyncio.run(...)"
            ) from None
        shape = f" of shape {tuple(value.shape)}" if tensor else ""
        raise TypeError(
            f"the objective returned {type(value).__name__}{shape}; expected one number "
            "(a float or a 0-d tensor): reduce it, for example with .mean()"
        ) from error
    if not math.isfinite(number):
        raise NonFiniteLossError(
            f"the objective returned {number} at {where}; θ is as it was before the step. If the "
            "loss grew before, use a smaller lr; if this is the first step, a smaller eps."
        )
    return number
