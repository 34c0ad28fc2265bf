"""The sum decay · θ + Σ_k c_k z(s_k) over tensors of one dtype on one device, and three ways to it.

On a GPU one Triton kernel processes all tensors (``triton_launch.py``). Otherwise the compiled
source processes blocks in batches. Without compiled kernels, generating z takes nearly all of the
time, so small tensors get z from their pool, which generates it once for all passes of a step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoopt.directions.kernel import compilation, triton_launch
from zoopt.directions.kernel.device import uploaded
from zoopt.directions.kernel.generator import BLOCK, NOISE, ROUNDING, Unit
from zoopt.directions.kernel.layout import Piece, Rows, batches, laid_out
from zoopt.directions.kernel.pool import Pool, in_pools, pooled
from zoopt.directions.kernel.rounding import (
    HALF,
    PER_BLOCK,
    accumulator,
    noise_of,
    rounding_words,
    stochastic_round,
)
from zoopt.directions.kernel.sources import run, sum_of, words_by, z_of
from zoopt.interfaces import Place, Terms

_UNROLL = 8
_WORDS, _GPU_WORDS = 1 << 20, 1 << 22
"""Words that are stored for a batch: 4 MB on a CPU, which stay in cache, and 16 MB on a GPU."""
_WIDE_BATCH = 1 << 11
"""Blocks in a batch with more terms than are unrolled, whose sums are stored in fp32."""


@dataclass(frozen=True)
class Sum:
    """decay · θ + Σ_k c_k z(s_k).

    Attributes:
        unit: the family that z is drawn from.
        terms: (seed, coefficient) pairs.
        decay: the factor of θ.
        dtype: of the tensors.
        device: of the tensors.
        stochastic: whether results are rounded stochastically.
        compiled: whether to run compiled kernels.
    """

    unit: Unit
    terms: Terms
    decay: float
    dtype: torch.dtype
    device: torch.device
    stochastic: bool
    compiled: bool

    def added_in_one_launch(
        self, places: Sequence[Place], first: int, eager: Callable[..., None]
    ) -> bool:
        """Whether the Triton kernel exists for this sum; if so, it has been applied.

        Args:
            places: contiguous, of the sum's dtype, on its device.
            first: offset of the places' first elements.
            eager: :func:`fused.add_`, with which the kernel is compared before its first use.
        """
        if len(self.parts) > 1 or not triton_launch.usable(self.variant, eager):
            return False
        part, seed = self.parts[0], self.rounding_seed
        triton_launch.launch(self.variant, self.decay, part, seed, places, first)
        return True

    def add_to(self, places: Sequence[Place], first: int) -> None:
        """Applies the sum to contiguous places, in several launches."""
        runs, others = laid_out(places, first)
        for batch in batches(runs, self.blocks_at_once) if runs else ():
            self._add_to_rows(batch.rows, batch.runs())
        for pieces in in_pools(others):
            self._add_to_pieces(pieces)

    @functools.cached_property
    def parts(self) -> list[Terms]:
        """The terms in parts of 1, 2, 4 or 8, the last one padded with zero coefficients."""
        terms = tuple((seed, c) for seed, c in self.terms if c != 0.0)
        parts = []
        for start in range(0, max(len(terms), 1), _UNROLL):
            part = terms[start : start + _UNROLL]
            part += ((0, 0.0),) * ((1 << max(len(part) - 1, 0).bit_length()) - len(part))
            parts.append(part)
        return parts

    @property
    def blocks_at_once(self) -> int:
        """The number of blocks in a batch."""
        words = len(self.parts[0]) * self.unit.per_block + (PER_BLOCK if self.stochastic else 0)
        if self.device.type != "cpu":
            return max(1, _GPU_WORDS // words)
        return max(1, min(_WORDS // words, _WIDE_BATCH if len(self.parts) > 1 else _WORDS))

    @property
    def rounding_seed(self) -> int:
        """The first seed, even if its coefficient is 0 and there is only decay.

        A constant seed would round the same weights the same way at every step.
        """
        return self.terms[0][0] if self.terms else 0

    @functools.cached_property
    def variant(self) -> triton_launch.Variant:
        """The variant of the Triton kernel for this sum."""
        number = len(self.parts[0])
        return triton_launch.Variant(self.unit, self.dtype, self.stochastic, number, self.device)

    def _add_to_pieces(self, pieces: Sequence[Piece]) -> None:
        if self.compiled and compilation.works():
            with pooled(pieces, self.dtype, keep=False) as pool:
                whole = slice(None), pool.blocks, pool.blocks
                self._add_to_rows(pool.rows, [whole])
        else:
            with pooled(pieces, accumulator(self.dtype), keep=True) as pool:
                self._add_in_pool(pool)

    def _add_in_pool(self, pool: Pool) -> None:
        """Applies the sum to a pool in the dtype of sums, term by term, with z from the pool."""
        acc, product = pool.blocks, pool.product
        acc.mul_(self.decay)
        for seed, c in (term for part in self.parts for term in part):
            torch.mul(self._z(pool, seed), c, out=product)
            acc.add_(product)
        if self.stochastic:
            noise = noise_of(self._noise(pool.rows))
            acc.copy_(stochastic_round(acc, self.dtype, noise))

    def _z(self, pool: Pool, seed: int) -> Tensor:
        """z(seed) at every element of a pool, remembered by the pool or generated."""
        z = pool.remembered(self.unit, seed)
        if z is None:
            words = self._words(pool.rows.addresses([seed], NOISE))[:, 0]
            z = pool.room(self.unit, seed)
            name = _named(self.unit.name, "z", z.dtype, self.device.type)
            run(name, z_of(self.unit), self.compiled, rows=[z, words])
        return z

    def _add_to_rows(self, rows: Rows, runs: Iterable[tuple[slice, Tensor, Tensor]]) -> None:
        """Applies the sum to runs of blocks, with one launch of each for each part of the terms."""
        sums = []
        for number, part in enumerate(self.parts):
            numbers = [1.0 if number else self.decay, *(c for _, c in part)]
            coefficients = uploaded(numbers, accumulator(self.dtype), self.device)
            sums.append((coefficients, rows.addresses([seed for seed, _ in part], NOISE)))
        noise = self._noise(rows) if self.stochastic else None
        if len(sums) == 1:
            ((coefficients, where),) = sums
            words = self._words(where)
            for which, blocks, into in runs:
                its = None if noise is None else noise[which]
                self._launch(blocks, into, coefficients, words[which], its)
            return
        for which, blocks, into in runs:
            acc = blocks.to(accumulator(self.dtype), copy=into is not blocks)
            for coefficients, where in sums:
                self._launch(acc, acc, coefficients, self._words(where[which]))
            if noise is not None:
                acc = stochastic_round(acc, self.dtype, noise_of(noise[which]))
            if acc is not into:
                into.copy_(acc)

    def _launch(
        self,
        blocks: Tensor,
        into: Tensor,
        coefficients: Tensor,
        words: Tensor,
        noise: Tensor | None = None,
    ) -> None:
        name = _named(self.unit.name, len(coefficients) - 1, blocks.dtype, self.device.type)
        stochastic, in_place = noise is not None, into is blocks
        rows = [blocks, words] if in_place else [into, blocks, words]
        # 16 half-precision numbers, for 16 sums in fp32, fill half of a 512-bit vector and are
        # stored with a mask, which on Zen 4 takes longer than computing the signs.
        cheap = self.unit.per_block < BLOCK and self.device.type == "cpu"
        narrow = cheap and blocks.dtype in HALF
        run(
            f"{name}{'_stochastic' if stochastic else ''}{'' if in_place else '_apart'}",
            sum_of(self.unit, stochastic, in_place),
            self.compiled,
            rows=rows if noise is None else [*rows, noise],
            constants=(coefficients,),
            narrow=narrow,
        )

    def _words(self, addresses: Tensor) -> Tensor:
        """The words that z is generated from, by block and seed: int32 of shape (n, K, W)."""
        unit = self.unit
        return self._made(unit.name, unit.words, unit.per_block, addresses, unit.parts)

    def _noise(self, rows: Rows) -> Tensor:
        """The words that rounding noise is made from: int32 of shape (n, 256)."""
        where = rows.addresses([self.rounding_seed], ROUNDING)
        return self._made("rounding", rounding_words, PER_BLOCK, where)[:, 0]

    def _made(
        self,
        name: str,
        words_of: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
        number: int,
        where: Tensor,
        parts: int = 1,
    ) -> Tensor:
        words = where.new_empty(*where.shape[:2], number)
        rows = where.reshape(-1, 3), *torch.split(words.view(-1, number), number // parts, 1)
        name = _named(name, "words", self.device.type)
        run(name, words_by(words_of), self.compiled, rows=rows)
        return words


def _named(*facts: object) -> str:
    """The name of a kernel, of what it is compiled for."""
    return "_".join(str(fact).removeprefix("torch.") for fact in facts)
