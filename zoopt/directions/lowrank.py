"""Low-rank directions: z of a matrix is A Bᵀ / √r, so that many probes fit into one forward.

A (m × r) and B (n × r) have independent components ±1, hence E[z zᵀ] = I: components of z are
uncorrelated, with variance 1. With r = 1 every component of z is ±1, and an estimate (gᵀz) z has
exactly the variance of Rademacher directions. A tensor with more than two dimensions is treated as
a matrix of shape (first dimension, all others), one with fewer as a single column, with B = 1.

Low-rank perturbations in zeroth-order tuning: LOZO (arXiv 2410.07698). Many of them in one batched
forward: EGGROLL (arXiv 2511.16652).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoopt.directions.kernel import compilation, cpp_launch
from zoopt.directions.kernel.device import uploaded
from zoopt.directions.kernel.full_precision import full_precision
from zoopt.directions.kernel.generator import BLOCK, LEFT, RIGHT
from zoopt.directions.kernel.rademacher import RADEMACHER, rademacher_words, signs_of
from zoopt.directions.kernel.round_into import round_into
from zoopt.directions.kernel.rounding import HALF, accumulator
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Change, Place, Slot, Terms
from zoopt.seeds import key_table

_CHUNK, _GPU_CHUNK = 1 << 20, 1 << 26
"""Elements of a half-precision matrix that are summed in fp32 at once."""
_TOGETHER = 1 << 22
"""Elements of the factors that are generated together: 16 MB in fp32."""


class LowRank:
    """z = A Bᵀ / √r for matrices, Rademacher for the rest.

    Args:
        rank: r. By name, ``"lowrank"`` is rank 1 and ``"lowrank:4"`` rank 4.

    Example:
        >>> import torch
        >>> from zoopt.interfaces import Change
        >>> direction = LowRank(rank=2)
        >>> z = torch.zeros(64, 48)
        >>> direction.add_(Change.of(z, index=0, terms=((7, 1.0),)))
        >>> int(torch.linalg.matrix_rank(z))
        2
    """

    def __init__(self, rank: int = 1) -> None:
        if rank < 1:
            raise ValueError(f"rank={rank}: the rank of a low-rank direction must be at least 1")
        self.rank = rank

    @property
    def name(self) -> str:
        """The family's name, followed by the rank if it is not 1."""
        return "lowrank" if self.rank == 1 else f"lowrank:{self.rank}"

    def bind(self, slots: Sequence[Slot]) -> None:
        """Does nothing, because z of a tensor depends on its own shape alone."""

    @torch.no_grad()
    @full_precision()
    def add_(self, *changes: Change, stochastic_rounding: bool = False) -> None:
        """Each tensor ← decay · tensor + Σ_k c_k z(s_k)[index], rounded once.

        It is one matrix product of inner dimension K r, in fp32 for all dtypes but fp64; in half
        precision it is computed in chunks of rows.
        """
        for change in changes:
            if not change:
                for place in change.places:
                    if place.into is not None:
                        place.into.detach().copy_(place.tensor.detach())
                continue
            for part in self._parts(change.places, len(change.terms)):
                for place, sides in zip(part, self._sides(part, change.terms), strict=True):
                    self._add_one(place, change, *sides, stochastic_rounding)

    def _parts(self, places: Iterable[Place], seeds: int) -> Iterator[list[Place]]:
        """The places in parts, on one device each, whose factors can be generated together."""
        part: list[Place] = []
        used = 0
        for place in places:
            if place.tensor.numel():
                numbers = sum(_as_matrix(place.tensor).shape) * self.rank * seeds
                elsewhere = part and part[0].tensor.device != place.tensor.device
                if part and (elsewhere or used + numbers > _TOGETHER):
                    yield part
                    part, used = [], 0
                part.append(place)
                used += numbers
        if part:
            yield part

    def _sides(self, part: Sequence[Place], terms: Terms) -> list[tuple[Tensor, Tensor]]:
        """For each place the two factors whose product is its Σ_k c_k z(s_k)."""
        factors = self._factors(part, [seed for seed, _ in terms])
        numbers, device = [[c] for _, c in terms], part[0].tensor.device
        dtypes = {left.dtype for left, _ in factors}
        c = {dtype: uploaded(numbers, dtype, device).view(-1, 1) for dtype in dtypes}
        found = []
        for left, right in factors:
            by_seed = left.view(len(left), len(terms), left.shape[1] // max(1, len(terms)))
            found.append(((by_seed * c[left.dtype]).flatten(1), right))
        return found

    def _add_one(
        self, place: Place, change: Change, left: Tensor, right: Tensor, stochastic_rounding: bool
    ) -> None:
        theta, target = place.tensor.detach(), place.result.detach()
        matrix = _as_matrix(theta)
        out = matrix if place.into is None else _as_matrix(target)
        if matrix.dtype in HALF:
            seed = change.terms[0][0] if change.terms else 0
            chunk = _CHUNK if matrix.device.type == "cpu" else _GPU_CHUNK
            rows = max(1, chunk // matrix.shape[1])
            for start in range(0, matrix.shape[0], rows):
                where = slice(start, start + rows)
                part, its = out[where], left[where]
                total = matrix[where].float().addmm_(its, right.T, beta=change.decay)
                if stochastic_rounding:
                    round_into(part, total, place.index, seed, first=start * matrix.shape[1])
                else:
                    part.copy_(total)
        else:
            torch.addmm(matrix, left, right.T, beta=change.decay, out=out)
        if out.data_ptr() != target.data_ptr():
            target.copy_(out.view(target.shape))

    @full_precision()
    def rows(self, matrix: Tensor, ids: Tensor, index: int, terms: Terms) -> Tensor:
        """Rows ``ids`` of a matrix after :meth:`add_`, shape (*ids.shape, width)."""
        ((left, right),) = self._sides([Place(matrix, index)], terms)
        rows = matrix.detach()[ids.flatten()].to(left.dtype)
        rows = torch.addmm(rows, left[ids.flatten()], right.T)
        return rows.to(matrix.dtype).view(*ids.shape, -1)

    def factors(
        self, places: Sequence[Place], seeds: Sequence[int], rounded: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """The factors of z(s)[index] for several seeds side by side, in fp32 (fp64 for fp64).

        The factors of many tensors are generated in a few operations.

        Args:
            places: non-empty tensors: matrices of shape (m, n), or tensors treated as such; their
                values are not used. A vector is treated as a single column, with B = 1.
            seeds: S of them.
            rounded: whether factors of matrices are rounded to the matrix's dtype.

        Returns:
            For each place A of shape (m, S r), which includes 1/√r, and B of shape (n, S r);
            columns k r to (k + 1) r − 1 belong to seed k. For a vector r is 1.
        """
        parts = self._parts(places, len(seeds))
        return [each for part in parts for each in self._factors(part, seeds, rounded)]

    def _factors(
        self, part: Sequence[Place], seeds: Sequence[int], rounded: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        wanted = []
        for tensor, index in ((place.tensor, place.index) for place in part):
            m, n = _as_matrix(tensor).shape
            dtype = tensor.dtype if rounded and tensor.ndim > 1 else accumulator(tensor.dtype)
            wanted.append(_Wanted(index, LEFT, m * self._rank_of(tensor), dtype))
            if tensor.ndim > 1:
                wanted.append(_Wanted(index, RIGHT, n * self.rank, dtype))
        device = part[0].tensor.device
        signs = _signs(seeds, wanted, device)
        ones = torch.ones(1, len(seeds), device=device)
        found = []
        for tensor in (place.tensor for place in part):
            rank = self._rank_of(tensor)
            a = _columns(next(signs), rank)
            b = _columns(next(signs), rank) if tensor.ndim > 1 else ones.to(a)
            found.append((a if rank == 1 else a / math.sqrt(rank), b))
        return found

    def _rank_of(self, tensor: Tensor) -> int:
        return self.rank if tensor.ndim > 1 else 1


def _as_matrix(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.ndim > 1 else tensor.view(-1, 1)


def _columns(signs: Tensor, rank: int) -> Tensor:
    """Shape (S, number · rank) rearranged to (number, S · rank), for rank 1 a view."""
    number = signs.shape[1] // rank
    return signs.reshape(len(signs), number, rank).transpose(0, 1).reshape(number, -1)


class _Wanted(NamedTuple):
    """One factor of a tensor, which is the ``position``-th of θ."""

    position: int
    purpose: int
    number: int
    dtype: torch.dtype


def _signs(
    seeds: Sequence[int], wanted: Sequence[_Wanted], device: torch.device
) -> Iterator[Tensor]:
    """Signs ±1 of shape (S, number) for each factor.

    They are generated together; each result is a view of whole blocks.
    """
    if not seeds:
        yield from (torch.zeros(0, w.number, dtype=w.dtype, device=device) for w in wanted)
        return
    keys = key_table(seeds, [(w.position, 0, w.purpose) for w in wanted])
    blocks = [-(-w.number // BLOCK) for w in wanted]
    each = np.repeat(blocks, len(seeds))
    numbers = np.arange(each.sum()) - np.repeat(each.cumsum() - each, each)
    rows = np.repeat(keys.reshape(-1, 2), each, axis=0)
    made = _blocks(
        uploaded(numbers, torch.int32, device), uploaded(rows, torch.int32, device).contiguous()
    )
    sizes = [count * len(seeds) for count in blocks]
    runs = {dtype: torch.split(made.to(dtype), sizes) for dtype in {w.dtype for w in wanted}}
    for i, w in enumerate(wanted):
        yield runs[w.dtype][i].view(len(seeds), -1)[:, : w.number]


def _blocks(numbers: Tensor, keys: Tensor) -> Tensor:
    """Signs of blocks, shape (n, 32, 16), from their numbers (n,) and keys (n, 2)."""
    total = Sum(RADEMACHER, (), 1.0, stochastic=False, rounding_seed=0)
    if compilation.allowed() and cpp_launch.usable(total, torch.float32, numbers.device):
        return cpp_launch.signs(numbers, keys)
    return signs_of(rademacher_words(numbers[:, None], keys.T.unsqueeze(2)))
