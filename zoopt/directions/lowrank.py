"""Low-rank directions: z of a matrix is A Bᵀ / √r, so that many probes fit into one forward.

A (m × r) and B (n × r) have independent components ±1, hence E[z zᵀ] = I: components of z are
uncorrelated, with variance 1. With r = 1 every component of z is ±1, and an estimate (gᵀz) z varies
exactly as much as with Rademacher directions. Tensors with fewer than two dimensions get Rademacher
components; those with more are matrices of shape (first dimension, all others).

Low-rank perturbations in zeroth-order tuning: LOZO (arXiv 2410.07698). Many of them in one batched
forward: EGGROLL (arXiv 2511.16652).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoopt.directions import compilation, kernel
from zoopt.directions.generator import LEFT, RIGHT, key
from zoopt.directions.rademacher import RADEMACHER
from zoopt.directions.rounding import HALF, accumulator, round_into
from zoopt.interfaces import Slot, Terms

_CHUNK = 1 << 20


class LowRank:
    """z = A Bᵀ / √r for matrices, Rademacher for the rest.

    Args:
        rank: r. By name, ``"lowrank"`` is rank 1 and ``"lowrank:4"`` rank 4.

    Example:
        >>> import torch
        >>> direction = LowRank(rank=2)
        >>> z = torch.zeros(64, 48)
        >>> direction.add_(z, index=0, terms=((7, 1.0),))
        >>> int(torch.linalg.matrix_rank(z))
        2
    """

    def __init__(self, rank: int = 1) -> None:
        if rank < 1:
            raise ValueError(f"rank={rank}: a low-rank direction has at least rank 1")
        self.rank = rank
        self._compiled = False

    @property
    def name(self) -> str:
        """What makes it again: the family, and the rank where it is not 1."""
        return "lowrank" if self.rank == 1 else f"lowrank:{self.rank}"

    def bind(self, slots: Sequence[Slot]) -> None:
        """Learns how much there is without factors, to compile for it or not."""
        dense = sum(slot.tensor.numel() for slot in slots if slot.tensor.ndim < 2)
        self._compiled = compilation.wanted(dense)

    @torch.no_grad()
    def add_(
        self,
        tensor: Tensor,
        index: int,
        terms: Terms,
        *,
        decay: float = 1.0,
        stochastic_rounding: bool = False,
    ) -> None:
        """tensor ← decay · tensor + Σ_k c_k z(s_k)[index], rounded once.

        Matrices take one matrix product of inner dimension K r, in fp32 whatever their dtype, half
        precision in chunks of rows.
        """
        if tensor.ndim < 2:
            kernel.add_(
                tensor,
                index,
                terms,
                RADEMACHER,
                decay=decay,
                stochastic_rounding=stochastic_rounding,
                compiled=self._compiled,
            )
            return
        if tensor.numel() == 0 or (decay == 1.0 and all(c == 0.0 for _, c in terms)):
            return
        target = tensor.detach()
        matrix = target.flatten(1)
        left, right = self._sides(matrix, index, terms)
        if matrix.dtype in HALF:
            seed = terms[0][0] if terms else 0
            rows = max(1, _CHUNK // matrix.shape[1])
            for start in range(0, matrix.shape[0], rows):
                part = matrix[start : start + rows]
                total = torch.addmm(part.float(), left[start : start + rows], right.T, beta=decay)
                if stochastic_rounding:
                    round_into(part, total, index, seed, first=start * matrix.shape[1])
                else:
                    part.copy_(total)
        else:
            matrix.addmm_(left, right.T, beta=decay)
        if matrix.data_ptr() != target.data_ptr():
            target.copy_(matrix.view(target.shape))

    def rows(self, matrix: Tensor, ids: Tensor, index: int, terms: Terms) -> Tensor:
        """Rows ``ids`` of a matrix as :meth:`add_` would leave them, shape (*ids.shape, width)."""
        left, right = self._sides(matrix, index, terms)
        rows = matrix.detach()[ids.flatten()].to(left.dtype)
        rows = torch.addmm(rows, left[ids.flatten()], right.T)
        return rows.to(matrix.dtype).view(*ids.shape, -1)

    def factors(self, matrix: Tensor, index: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The factors of z(s)[index] for several seeds, in fp32 (fp64 for fp64).

        Args:
            matrix: shape (m, n); only its shape, dtype and device matter.
            index: its position in θ.
            seeds: S of them.

        Returns:
            A of shape (S, m, r), in which 1/√r is included, and B of shape (S, n, r).
        """
        m, n = matrix.shape
        dtype = accumulator(matrix.dtype)
        a = self._signs(seeds, index, LEFT, m, matrix.device).to(dtype)
        b = self._signs(seeds, index, RIGHT, n, matrix.device).to(dtype)
        return a / math.sqrt(self.rank), b

    def _signs(
        self, seeds: Sequence[int], index: int, side: int, rows: int, device: torch.device
    ) -> Tensor:
        """±1 of shape (S, rows, r)."""
        keys = torch.stack([key(seed, index, 0, side, device) for seed in seeds], 1).unsqueeze(-1)
        offsets = torch.arange(rows * self.rank, dtype=torch.int32, device=device)
        return RADEMACHER.at(offsets, keys).view(len(seeds), rows, self.rank)

    def _sides(self, matrix: Tensor, index: int, terms: Terms) -> tuple[Tensor, Tensor]:
        """L (m, K r) and R (n, K r) with Σ_k c_k z(s_k)[index] = L Rᵀ."""
        if not terms:
            empty = matrix.new_zeros(1, 0, dtype=accumulator(matrix.dtype))
            return empty.expand(matrix.shape[0], 0), empty.expand(matrix.shape[1], 0)
        a, b = self.factors(matrix, index, [seed for seed, _ in terms])
        c = a.new_tensor([c for _, c in terms]).view(-1, 1, 1)
        return (a * c).transpose(0, 1).flatten(1), b.transpose(0, 1).flatten(1)
