"""Low-rank directions: z of a matrix is A Bᵀ / √r, so that many probes fit into one forward.

A (m × r) and B (n × r) have independent components ±1, hence E[z zᵀ] = I: components of z are
uncorrelated, with variance 1. With r = 1 every component of z is ±1, and an estimate (gᵀz) z varies
exactly as much as with Rademacher directions. A tensor with more than two dimensions is taken for a
matrix of shape (first dimension, all others), one with fewer for a single column, of which B is 1.

Low-rank perturbations in zeroth-order tuning: LOZO (arXiv 2410.07698). Many of them in one batched
forward: EGGROLL (arXiv 2511.16652).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from zoopt.directions.generator import BLOCK, LEFT, RIGHT
from zoopt.directions.rademacher import rademacher_words, signs_of
from zoopt.directions.rounding import HALF, accumulator, round_into
from zoopt.interfaces import Change, Slot, Terms
from zoopt.seeds import key_words

_CHUNK = 1 << 20


class LowRank:
    """z = A Bᵀ / √r for matrices, Rademacher for the rest.

    Args:
        rank: r. By name, ``"lowrank"`` is rank 1 and ``"lowrank:4"`` rank 4.

    Example:
        >>> import torch
        >>> from zoopt.interfaces import Change
        >>> direction = LowRank(rank=2)
        >>> z = torch.zeros(64, 48)
        >>> direction.add_(Change(z, index=0, terms=((7, 1.0),)))
        >>> int(torch.linalg.matrix_rank(z))
        2
    """

    def __init__(self, rank: int = 1) -> None:
        if rank < 1:
            raise ValueError(f"rank={rank}: a low-rank direction has at least rank 1")
        self.rank = rank

    @property
    def name(self) -> str:
        """What makes it again: the family, and the rank where it is not 1."""
        return "lowrank" if self.rank == 1 else f"lowrank:{self.rank}"

    def bind(self, slots: Sequence[Slot]) -> None:
        """Nothing to learn: z of a tensor depends on its own shape alone."""

    @torch.no_grad()
    def add_(self, *changes: Change, stochastic_rounding: bool = False) -> None:
        """Each tensor ← decay · tensor + Σ_k c_k z(s_k)[index], rounded once.

        One matrix product of inner dimension K r, in fp32 whatever the dtype; half precision takes
        it in chunks of rows.
        """
        for change in changes:
            if change.tensor.numel():
                self._add_one(change, stochastic_rounding)

    def _add_one(self, change: Change, stochastic_rounding: bool) -> None:
        theta, index = change.tensor.detach(), change.index
        target = theta if change.into is None else change.into.detach()
        if change.decay == 1.0 and not any(c for _, c in change.terms):
            if change.into is not None:
                target.copy_(theta)
            return
        matrix = _as_matrix(theta)
        out = matrix if target is theta else _as_matrix(target)
        left, right = self._sides(theta, index, change.terms)
        if matrix.dtype in HALF:
            seed = change.terms[0][0] if change.terms else 0
            rows = max(1, _CHUNK // matrix.shape[1])
            for start in range(0, matrix.shape[0], rows):
                where = slice(start, start + rows)
                part, its = out[where], left[where]
                total = torch.addmm(matrix[where].float(), its, right.T, beta=change.decay)
                if stochastic_rounding:
                    round_into(part, total, index, seed, first=start * matrix.shape[1])
                else:
                    part.copy_(total)
        else:
            torch.addmm(matrix, left, right.T, beta=change.decay, out=out)
        if out.data_ptr() != target.data_ptr():
            target.copy_(out.view(target.shape))

    def rows(self, matrix: Tensor, ids: Tensor, index: int, terms: Terms) -> Tensor:
        """Rows ``ids`` of a matrix as :meth:`add_` would leave them, shape (*ids.shape, width)."""
        left, right = self._sides(matrix, index, terms)
        rows = matrix.detach()[ids.flatten()].to(left.dtype)
        rows = torch.addmm(rows, left[ids.flatten()], right.T)
        return rows.to(matrix.dtype).view(*ids.shape, -1)

    def factors(self, tensor: Tensor, index: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The factors of z(s)[index] for several seeds side by side, in fp32 (fp64 for fp64).

        Args:
            tensor: a matrix of shape (m, n), or what is taken for one; its values do not matter. A
                vector is a single column, of which B is 1.
            index: its position in θ.
            seeds: S of them.

        Returns:
            A of shape (m, S r), in which 1/√r is included, and B of shape (n, S r); columns k r to
            (k + 1) r − 1 belong to seed k. For a vector r is 1.
        """
        m, n = _as_matrix(tensor).shape
        dtype, device = accumulator(tensor.dtype), tensor.device
        if tensor.ndim < 2:
            (a,) = _signs(seeds, index, {LEFT: m}, 1, device)
            return a.to(dtype), torch.ones(1, len(seeds), dtype=dtype, device=device)
        a, b = (f.to(dtype) for f in _signs(seeds, index, {LEFT: m, RIGHT: n}, self.rank, device))
        return (a if self.rank == 1 else a / math.sqrt(self.rank)), b

    def _sides(self, tensor: Tensor, index: int, terms: Terms) -> tuple[Tensor, Tensor]:
        """L (m, q) and R (n, q) with Σ_k c_k z(s_k)[index] = L Rᵀ."""
        left, right = self.factors(tensor, index, [seed for seed, _ in terms])
        c = left.new_tensor([c for _, c in terms])
        return left * c.repeat_interleave(left.shape[1] // max(1, len(terms))), right


def _as_matrix(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.ndim > 1 else tensor.view(-1, 1)


def _signs(
    seeds: Sequence[int], index: int, rows: Mapping[int, int], rank: int, device: torch.device
) -> Iterator[Tensor]:
    """±1 of shape (rows, S · rank) for each purpose, of words that are made together."""
    if not seeds:
        yield from (torch.zeros(number, 0, device=device) for number in rows.values())
        return
    keys = [key_words(seed, index, 0, purpose) for purpose in rows for seed in seeds]
    blocks = [-(-number * rank // BLOCK) for number in rows.values()]
    numbers = torch.arange(max(blocks), dtype=torch.int32, device=device)[:, None]
    keys_of_rows = torch.tensor(keys, dtype=torch.int32, device=device).T[:, :, None, None]
    words = rademacher_words(numbers, keys_of_rows).chunk(len(rows))
    for number, used, part in zip(rows.values(), blocks, words, strict=True):
        signs = signs_of(part[:, :used]).view(len(seeds), -1)[:, : number * rank]
        yield signs.view(len(seeds), number, rank).transpose(0, 1).flatten(1)
