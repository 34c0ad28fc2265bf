"""A population: the K probes that one call of the closure evaluates together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

T = TypeVar("T")


class Population:
    """K probes side by side in one batch, probe-major: rows k·B to (k+1)·B − 1 belong to probe k.

    A closure that takes a population repeats its inputs K times with :meth:`expand`, splits the
    model's outputs by probe with :meth:`per_probe`, and returns K numbers. Every engine accepts
    such a closure; those that evaluate one probe at a time call it with K = 1.

    Attributes:
        size: K.
        remade: number of elements of θ that the engine has to recompute for every forward.
        rows: K · B as last declared, 0 before.

    Example:
        >>> import torch
        >>> population = Population(2)
        >>> inputs = population.expand(torch.tensor([[1.0], [5.0]]))
        >>> inputs.flatten().tolist()
        [1.0, 5.0, 1.0, 5.0]
        >>> population.per_probe(inputs).mean((1, 2)).tolist()
        [3.0, 3.0]
    """

    def __init__(self, size: int, remade: int = 0) -> None:
        self.size = size
        self.remade = remade
        self.rows = 0

    def declare(self, rows: int) -> None:
        """Declares the number of rows of the following forwards, a multiple of K."""
        if rows % self.size:
            raise ValueError(f"{rows} rows do not divide into a population of {self.size} probes")
        self.rows = rows

    def expand(self, tensors: T) -> T:
        """Every tensor of shape (B, …), in containers or alone, as (K·B, …).

        Raises:
            ValueError: the tensors do not have the same B.
        """
        lengths: set[int] = set()

        def repeat(tensor: Tensor) -> Tensor:
            lengths.add(tensor.shape[0])
            return tensor.repeat(self.size, *(1,) * (tensor.ndim - 1))

        expanded: T = tree_map_only(Tensor, repeat, tensors)
        if len(lengths) != 1:
            raise ValueError(
                f"expand() was given tensors with {sorted(lengths) or 'no'} rows; expected the "
                "same first dimension in all tensors of a forward"
            )
        self.declare(self.size * lengths.pop())
        return expanded

    def per_probe(self, values: Tensor) -> Tensor:
        """The values split by probe: shape (K·B, …) as (K, B, …)."""
        return values.reshape(self.size, -1, *values.shape[1:])

    def numbers(self, returned: Any) -> Sequence[Any]:
        """A closure's return value as K values.

        Raises:
            TypeError: it does not consist of K values.
        """
        if isinstance(returned, Tensor | np.ndarray):
            returned = returned.reshape(1) if returned.ndim == 0 else returned
        elif not isinstance(returned, Sequence) or isinstance(returned, str):
            returned = list(returned) if hasattr(returned, "__len__") else [returned]
        if len(returned) != self.size:
            raise TypeError(
                f"the closure returned {len(returned)} values for a population of {self.size} "
                "probes; expected one per probe: population.per_probe(values) has shape "
                "(K, B, …), so reduce all but its first dimension"
            )
        values: Sequence[Any] = returned
        if isinstance(returned, Tensor):
            # Copied to the CPU together, because each separate copy would wait for the device.
            together = returned.ndim == 1 and self.size > 1
            values = torch.unbind(returned.cpu() if together else returned)
        return values


def takes_population(closure: Callable[..., Any]) -> bool:
    """Whether a closure takes a population: it has a positional parameter without default."""
    if isinstance(closure, FunctionType) and not vars(closure):  # a quick way, without a signature
        return closure.__code__.co_argcount > len(closure.__defaults__ or ())
    try:
        parameters = inspect.signature(closure).parameters.values()
    except ValueError:  # a builtin without a signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in positional and p.default is p.empty for p in parameters)
