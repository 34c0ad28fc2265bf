"""What each of K probes has in place of a parameter, in the forms that operations ask for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from zoopt.directions import LowRank
from zoopt.interfaces import Slot, Terms


class Perturbation(ABC):
    """What each of K probes has in place of one tensor."""

    sources: frozenset[int]
    """``id`` of the parameters that it comes from."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._stacked: Tensor | None = None

    @abstractmethod
    def explicit(self, k: int) -> Tensor:
        """The tensor as probe k has it."""

    def stacked(self) -> Tensor:
        """The tensor as all probes have it, shape (K, *shape). For small ones."""
        if self._stacked is None:
            self._stacked = torch.stack([self.explicit(k) for k in range(self.size)])
        return self._stacked

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """L (K, m, q) and R (K, n, q) with L Rᵀ what each probe adds; None if there are none."""
        return None


class OfParameter(Perturbation):
    """The displacements of a parameter.

    Args:
        slot: the parameter.
        terms: what each of the K probes adds to it.
        direction: the family of z.
    """

    def __init__(self, slot: Slot, terms: Sequence[Terms], direction: LowRank) -> None:
        super().__init__(len(terms))
        self.sources = frozenset([id(slot.tensor)])
        self._slot, self._terms, self._direction = slot, terms, direction
        self._factors: tuple[Tensor, Tensor] | None = None

    def explicit(self, k: int) -> Tensor:
        """θ + Σ a z(s), made anew at each call."""
        tensor = self._slot.tensor.detach().clone()
        self._direction.add_(tensor, self._slot.index, self._terms[k])
        return tensor

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """For a matrix, with the coefficients in L; q is rank times terms a probe.

        Probes share seeds (the two of a pair do), so each seed's factors are made once.
        """
        matrix = self._slot.tensor
        if self._factors is None and matrix.ndim == 2:
            seeds = sorted({seed for terms in self._terms for seed, _ in terms}) or [0]
            a, b = self._direction.factors(matrix, self._slot.index, seeds)
            most = max(1, *map(len, self._terms))
            padded = [terms + ((seeds[0], 0.0),) * (most - len(terms)) for terms in self._terms]
            chosen = torch.tensor([[seeds.index(s) for s, _ in terms] for terms in padded])
            chosen = chosen.to(a.device)
            c = a.new_tensor([[c for _, c in terms] for terms in padded])[..., None, None]
            left, right = a[chosen] * c, b[chosen]
            self._factors = (
                left.transpose(1, 2).flatten(2).to(matrix.dtype),
                right.transpose(1, 2).flatten(2).to(matrix.dtype),
            )
        return self._factors


class Derived(Perturbation):
    """What an operation makes of parameters alone, such as a cast or a transposition.

    Args:
        func: the operation.
        given: its (args, kwargs).
        made: the perturbations of the tensors among them.
    """

    def __init__(self, func: Callable[..., Any], given: Any, made: Made) -> None:
        super().__init__(next(iter(made.values())).size)
        self.sources = frozenset().union(*(each.sources for each in made.values()))
        self._func, self._given, self._made = func, given, made

    def explicit(self, k: int) -> Tensor:
        """The operation on what probe k has."""
        args, kwargs = tree_map(
            lambda leaf: self._made[id(leaf)].explicit(k) if id(leaf) in self._made else leaf,
            self._given,
        )
        result: Tensor = self._func(*args, **kwargs)
        return result


Made = Mapping[int, Perturbation]
"""Perturbations by the ``id`` of the tensor that they stand in for."""
