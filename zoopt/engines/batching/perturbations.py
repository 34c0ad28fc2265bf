"""The perturbed parameters of K probes, in the forms that operations need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves

from zoopt.directions import LowRank
from zoopt.directions.kernel.device import uploaded
from zoopt.engines.interception.fp32 import unrounded
from zoopt.interfaces import Change, Place, Slot, Terms
from zoopt.parameters.masters import vectors_alike


class Weights(NamedTuple):
    """Coefficients of q columns of factors for K probes."""

    coefficients: Tensor
    """Shape (K, q)."""
    columns: Tensor
    """Shape (K, p): for each probe p columns, including all whose coefficient is not 0."""
    own: Tensor
    """Shape (K, p): the coefficients of these columns."""


class ProbeTerms:
    """The displacements of K probes for the tensors of a group: Σ_s c[k, s] z(s) over all seeds.

    Probes share seeds (the two of a pair do), so each seed's z is generated once.

    Args:
        terms: the (seed, coefficient) pairs of each probe.
        slots: the tensors of the group.
        direction: the family of z.
    """

    def __init__(self, terms: Sequence[Terms], slots: Sequence[Slot], direction: LowRank) -> None:
        self.terms, self.direction = terms, direction
        self._slots = [slot for slot in slots if slot.tensor.ndim <= 2 and slot.tensor.numel()]
        self.seeds = sorted({seed for each in terms for seed, _ in each}) or [0]
        place = {seed: i for i, seed in enumerate(self.seeds)}
        table = [[0.0] * len(self.seeds) for _ in terms]
        for row, each in zip(table, terms, strict=True):
            for seed, c in each:
                row[place[seed]] += c
        self._coefficients = torch.tensor(table, dtype=torch.float64)
        self._weights: dict[tuple[int, torch.dtype, torch.device], Weights] = {}

    def weights(self, like: Tensor, rank: int = 1) -> Weights:
        """Every probe's coefficients of the factors' columns.

        Args:
            like: a tensor with the dtype of the coefficients and the device of the results.
            rank: columns per seed.
        """
        key = rank, like.dtype, like.device
        if key not in self._weights:
            c = self._coefficients.repeat_interleave(rank, 1)
            most = int((c != 0).sum(1).max())
            columns = torch.argsort(c == 0, dim=1, stable=True)[:, :most]
            self._weights[key] = Weights(
                uploaded(c, like.dtype, like.device),
                uploaded(columns, torch.int64, like.device),
                uploaded(c.gather(1, columns), like.dtype, like.device),
            )
        return self._weights[key]

    @cached_property
    def sides(self) -> dict[int, tuple[Tensor, Tensor]]:
        """The factors of z for all seeds of every matrix and vector, by its position in θ.

        Those of a matrix are in its dtype.
        """
        places = [Place(slot.exact.detach(), slot.index) for slot in self._slots]
        factors = self.direction.factors(places, self.seeds, rounded=True)
        return {place.index: each for place, each in zip(places, factors, strict=True)}

    @cached_property
    def vectors(self) -> dict[int, Tensor]:
        """θ + Σ c z(s) of every vector for all probes, shape (K, *shape), by its position in θ.

        Vectors of one dtype and device are computed in one product.
        """
        made = {}
        for slots in vectors_alike(self._slots):
            theta = torch.cat([slot.exact.detach().view(-1) for slot in slots])
            z = torch.cat([self.sides[slot.index][0] for slot in slots])
            moved = torch.addmm(theta, self.weights(z).coefficients, z.T).to(theta.dtype)
            parts = torch.split(moved, [slot.tensor.numel() for slot in slots], 1)
            for slot, part in zip(slots, parts, strict=True):
                made[slot.index] = part.view(-1, *slot.tensor.shape)
        return made


class Factors(NamedTuple):
    """Probe k adds (left · weights.coefficients[k]) rightᵀ to a matrix of shape (m, n)."""

    left: Tensor
    """Shape (m, q)."""
    right: Tensor
    """Shape (n, q)."""
    weights: Weights


class Perturbation(ABC):
    """The perturbed values of one tensor for K probes."""

    sources: frozenset[int]
    """``id`` of the parameters that it depends on."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._stacked: Tensor | None = None

    @abstractmethod
    def explicit(self, k: int) -> Tensor:
        """The tensor for probe k."""

    def stacked(self) -> Tensor:
        """The tensor for all probes, shape (K, *shape). For small tensors."""
        if self._stacked is None:
            self._stacked = torch.stack([self.explicit(k) for k in range(self.size)])
        return self._stacked

    def factors(self) -> Factors | None:
        """The perturbation as a product of thin matrices; None if it has no such form."""
        return None


class OfParameter(Perturbation):
    """The perturbed values of a parameter.

    Args:
        slot: the parameter.
        probes: the displacements of the K probes.
    """

    def __init__(self, slot: Slot, probes: ProbeTerms) -> None:
        super().__init__(len(probes.terms))
        self.sources = frozenset([id(slot.tensor)])
        self._slot, self._probes = slot, probes
        self._factors: Factors | None = None

    def explicit(self, k: int) -> Tensor:
        """θ + Σ c z(s), computed at each call; a half-precision vector in fp32."""
        tensor = self._slot.exact.detach().clone()
        self._probes.direction.add_(Change.of(tensor, self._slot.index, self._probes.terms[k]))
        return tensor

    def stacked(self) -> Tensor:
        """θ + Σ c z(s) for all probes; all vectors are computed together."""
        if self._slot.tensor.ndim < 2:
            return self._probes.vectors[self._slot.index]
        return super().stacked()

    def factors(self) -> Factors | None:
        """The factors of a matrix in its dtype, all seeds side by side; None for other tensors."""
        matrix = self._slot.tensor
        if self._factors is None and matrix.ndim == 2:
            left, right = self._probes.sides[self._slot.index]
            weights = self._probes.weights(matrix, self._probes.direction.rank)
            self._factors = Factors(left, right, weights)
        return self._factors


class Derived(Perturbation):
    """The result of an operation on parameters only, such as a cast or a transposition.

    Args:
        func: the operation.
        given: its (args, kwargs).
        made: the perturbations of the tensors among them.
        part: index of the returned tensor, if the operation returns several.
    """

    def __init__(self, func: Callable[..., Any], given: Any, made: Made, part: int = 0) -> None:
        super().__init__(next(iter(made.values())).size)
        self.sources = frozenset().union(*(each.sources for each in made.values()))
        self._func, self._given, self._made, self._part = func, given, made, part

    def parts(self, number: int) -> list[Derived]:
        """One perturbation for each of the tensors that the operation returns."""
        return [Derived(self._func, self._given, self._made, i) for i in range(number)]

    def explicit(self, k: int) -> Tensor:
        """The operation's result for probe k."""
        leaves, form = tree_flatten(self._given)
        moved = [self._made[id(x)].explicit(k) if id(x) in self._made else x for x in leaves]
        result: Tensor = tree_leaves(unrounded(self._func, leaves, moved, form))[self._part]
        return result


Made = Mapping[int, Perturbation]
"""Perturbations by the ``id`` of the tensor that they replace."""
