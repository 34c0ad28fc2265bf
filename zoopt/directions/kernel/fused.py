"""The fused kernel: θ ← decay · θ + Σ_k c_k z(s_k), one read and one write of θ, no buffer for z.

The source consists of plain torch operations. ``torch.compile`` turns it into fused C++ on CPU
and Triton on CUDA; eager execution of the same source, in chunks that stay in cache, is the
reference and the fallback. On CPU the two agree bit for bit, because every operation in the source
is exact or correctly rounded and Inductor compiles C++ with contraction off. On CUDA a separate
Triton source is preferred, with one launch per pass (``triton_launch.py``).

The source processes blocks of 512 elements. The words that z is generated from are computed by
another kernel just before, for each block and term: 16 words if a family gets 32 values from a
word, or one per element. So the compiler has no reason to store intermediate results in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoopt.directions.kernel import compilation, generator, triton_launch
from zoopt.directions.kernel.device import uploaded
from zoopt.directions.kernel.generator import BLOCK, NOISE, ROUNDING, Unit, key
from zoopt.directions.kernel.layout import Batch, batches, pieces_of
from zoopt.directions.kernel.rounding import (
    HALF,
    PER_BLOCK,
    accumulator,
    noise_of,
    rounding_words,
    stochastic_round,
)
from zoopt.interfaces import Change, Place, Terms
from zoopt.seeds import key_words

KERNEL_VERSION = 2
"""Changes whenever z(seed) or the arithmetic of the update changes. Written to every log."""

_EAGER_CHUNK, _GPU_EAGER_CHUNK = 1 << 16, 1 << 23
"""Elements at once in eager execution: few enough for a CPU's cache; on a GPU, for few launches."""
_UNROLL = 8
_WORDS, _GPU_WORDS = 1 << 20, 1 << 22
"""Words that are stored for a batch: 4 MB on a CPU, which stay in cache, and 16 MB on a GPU."""
_WIDE_BATCH = 1 << 11
"""Blocks in a batch with more terms than are unrolled, whose sums are stored in fp32."""


@torch.no_grad()
def add_(
    changes: Sequence[Change],
    unit: Unit,
    *,
    stochastic_rounding: bool = False,
    compiled: bool = False,
    first: int = 0,
) -> None:
    """Each tensor ← decay · tensor + Σ_k c_k z(s_k)[index], accumulated in fp32 and rounded once.

    Args:
        changes: the changes, whose tensors and results share no memory. Tensors that are not
            contiguous are copied to contiguous ones.
        unit: the family that z is drawn from.
        stochastic_rounding: round fp16 and bf16 results up or down at random so that the mean is
            exact; otherwise to nearest. Without effect on fp32 and fp64.
        compiled: run the compiled kernel, if it can be compiled.
        first: offset of the tensors' first elements, if they are pieces of larger tensors.
    """
    for change, kinds in [(change, _alike(change.places)) for change in changes]:
        if not change:
            for place in change.places:
                if place.into is not None:
                    place.into.copy_(place.tensor)
            continue
        for (dtype, device), places in kinds.items():
            stochastic = stochastic_rounding and dtype in HALF
            total = _Sum(unit, change.terms, change.decay, dtype, device, stochastic, compiled)
            runs, afterwards = _in_rows(places)
            if runs:
                total.add_to(runs, first)
            for wanted, result in afterwards:
                wanted.copy_(result)


def _alike(places: Sequence[Place]) -> dict[tuple[torch.dtype, torch.device], list[Place]]:
    """The places by dtype and device."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Place]] = {}
    for place in places:
        tensor = place.tensor
        kinds.setdefault((tensor.dtype, tensor.device), []).append(place)
    for dtype, _ in kinds:
        if not dtype.is_floating_point:
            raise TypeError(
                f"cannot add noise to a tensor of dtype {dtype}; expected floating-point "
                "parameters: leave quantized or integer ones out with params=..."
            )
    return kinds


def _in_rows(places: Iterable[Place]) -> tuple[list[Place], list[tuple[Tensor, Tensor]]]:
    """The non-empty places, made contiguous, and (target, source) pairs to copy afterwards."""
    rows, afterwards = [], []
    for place in places:
        tensor, there = place.tensor, place.into
        straight = tensor.is_contiguous()
        if not tensor.numel():
            continue
        if straight and (there is None or there.is_contiguous()):
            rows.append(place)
            continue
        here = tensor.contiguous()
        if there is None or not there.is_contiguous():
            there = torch.empty_like(here) if straight else here
            afterwards.append((place.result, there))
        rows.append(Place(here, place.index, there))
    return rows, afterwards


@torch.no_grad()
def add_to_rows(
    rows: Tensor, ids: Tensor, numel: int, index: int, terms: Terms, unit: Unit
) -> Tensor:
    """The given rows of a matrix after :func:`add_` on the whole matrix.

    Args:
        rows: shape (..., width), the unperturbed rows.
        ids: shape (...), their row numbers in the matrix.
        numel: number of elements of the whole matrix.
        index: the matrix's position in θ.
        terms: (seed, coefficient) pairs.
        unit: the family that z is drawn from.
    """
    width = rows.shape[-1]
    places = ids.to(torch.int64).unsqueeze(-1) * width + torch.arange(width, device=rows.device)
    segment, within = places // generator.SEGMENT, (places % generator.SEGMENT).to(torch.int32)
    acc = rows.to(accumulator(rows.dtype))
    for seed, c in terms:
        z = unit.at(within, key(seed, index, 0, NOISE, rows.device))
        for number in range(1, -(-numel // generator.SEGMENT)):
            values = unit.at(within, key(seed, index, number, NOISE, rows.device))
            z = torch.where(segment == number, values, z)
        acc = acc + z.to(acc.dtype) * torch.tensor(c, dtype=acc.dtype)
    return acc.to(rows.dtype)


@dataclass(frozen=True)
class _Sum:
    """decay · θ + Σ_k c_k z(s_k), for tensors of one dtype on one device."""

    unit: Unit
    terms: Terms
    decay: float
    dtype: torch.dtype
    device: torch.device
    stochastic: bool
    compiled: bool

    @property
    def blocks_at_once(self) -> int:
        """The number of blocks in a batch."""
        words = len(self.parts[0]) * self.unit.per_block + (PER_BLOCK if self.stochastic else 0)
        if self.device.type != "cpu":
            return max(1, _GPU_WORDS // words)
        return max(1, min(_WORDS // words, _WIDE_BATCH if len(self.parts) > 1 else _WORDS))

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

    def in_one_launch(self) -> bool:
        """Whether a kernel can process all places in one launch."""
        return self.compiled and len(self.parts) == 1 and triton_launch.usable(self.variant, add_)

    def add_to(self, places: Sequence[Place], first: int) -> None:
        """Applies the sum to contiguous places, in one launch if possible.

        ``first`` is the offset of the places' first elements.
        """
        if self.in_one_launch():
            part, seed = self.parts[0], self.rounding_seed
            triton_launch.launch(self.variant, self.decay, part, seed, places, first)
            return
        pieces = (piece for place in places for piece in pieces_of(place, first))
        for batch in batches(pieces, self.blocks_at_once):
            self._add_to_batch(batch)

    def _add_to_batch(self, batch: Batch) -> None:
        """Applies the sum to a batch, with one launch for each part of the terms."""
        sums = []
        for number, part in enumerate(self.parts):
            numbers = [1.0 if number else self.decay, *(c for _, c in part)]
            coefficients = uploaded(numbers, accumulator(self.dtype), self.device)
            sums.append((coefficients, _addresses(batch, [seed for seed, _ in part], NOISE)))
        noise = None
        if self.stochastic:
            where = _addresses(batch, [self.rounding_seed], ROUNDING)
            noise = self._made("rounding", rounding_words, PER_BLOCK, where)[:, 0]
        if len(sums) == 1:
            ((coefficients, where),) = sums
            words = self._words(where)
            for rows, blocks, into in batch.runs():
                its = None if noise is None else noise[rows]
                self._launch(blocks, into, coefficients, words[rows], its)
            return
        for rows, blocks, into in batch.runs():
            acc = blocks.to(accumulator(self.dtype), copy=into is not blocks)
            for coefficients, where in sums:
                self._launch(acc, acc, coefficients, self._words(where[rows]))
            if noise is not None:
                acc = stochastic_round(acc, self.dtype, noise_of(noise[rows]))
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
        facts = self.unit.name, len(coefficients) - 1, blocks.dtype, blocks.device.type
        name = "_".join(str(fact).removeprefix("torch.") for fact in facts)
        stochastic, in_place = noise is not None, into is blocks
        rows = [blocks, words] if in_place else [into, blocks, words]
        # 16 half-precision numbers, for 16 sums in fp32, fill half of a 512-bit vector and are
        # stored with a mask, which on Zen 4 takes longer than computing the signs.
        cheap = self.unit.per_block < BLOCK and self.device.type == "cpu"
        narrow = cheap and blocks.dtype in HALF
        _run(
            f"{name}{'_stochastic' if stochastic else ''}{'' if in_place else '_apart'}",
            _make_sum(self.unit, stochastic, in_place),
            self.compiled,
            rows=rows if noise is None else [*rows, noise],
            constants=(coefficients,),
            narrow=narrow,
        )

    def _words(self, addresses: Tensor) -> Tensor:
        """The words that z is generated from, by block and seed: int32 of shape (n, K, W)."""
        return self._made(self.unit.name, self.unit.words, self.unit.per_block, addresses)

    def _made(
        self, name: str, words_of: Callable[[Tensor, Tensor], Tensor], number: int, where: Tensor
    ) -> Tensor:
        words = where.new_empty(*where.shape[:2], number)
        rows = words.view(-1, number), where.reshape(-1, 3)
        _run(f"{name}_words_{self.device.type}", _make_words(words_of), self.compiled, rows=rows)
        return words


def _addresses(batch: Batch, seeds: Sequence[int], purpose: int) -> Tensor:
    """Block number and key of each block's words, by seed: int32 of shape (n, K, 3)."""
    return batch.addresses(
        lambda piece: [key_words(seed, piece.index, piece.segment, purpose) for seed in seeds]
    )


def _run(
    name: str,
    source: compilation.Source,
    compiled: bool,
    rows: Sequence[Tensor],
    constants: Sequence[Tensor] = (),
    narrow: bool = False,
) -> None:
    """Runs a source on tensors with the same number of rows; it writes to the first of them."""
    if compiled:
        kernel = compilation.kernel(name, source, constants, rows, narrow)
        if kernel is not None:
            kernel(*constants, *rows)
            return
    chunk = _EAGER_CHUNK if rows[0].device.type == "cpu" else _GPU_EAGER_CHUNK
    step = max(1, chunk // rows[0][0].numel())
    for start in range(0, rows[0].shape[0], step):
        source(*constants, *(part[start : start + step] for part in rows))


@functools.cache
def _make_sum(unit: Unit, stochastic: bool, in_place: bool) -> compilation.Source:
    """The kernel's source for a family, both for compilation and for eager execution."""

    def add_to_blocks(coefficients: Tensor, blocks: Tensor, words: Tensor, *noise: Tensor) -> None:
        add_into(coefficients, blocks, blocks, words, *noise)

    def add_into(
        coefficients: Tensor, into: Tensor, blocks: Tensor, words: Tensor, *noise: Tensor
    ) -> None:
        acc = blocks.to(coefficients.dtype) * coefficients[0]
        for k in range(words.shape[1]):
            z = unit.spread(words[:, k])
            acc = acc + z.to(coefficients.dtype) * coefficients[k + 1]
        if stochastic:
            acc = stochastic_round(acc, blocks.dtype, noise_of(*noise))
        into.copy_(acc)

    return add_to_blocks if in_place else add_into


@functools.cache
def _make_words(words_of: Callable[[Tensor, Tensor], Tensor]) -> compilation.Source:
    """A source that writes the words of blocks, shape (m, W), given addresses (m, 3)."""

    def write_words(words: Tensor, addresses: Tensor) -> None:
        words.copy_(words_of(addresses[:, :1], addresses[:, 1:].T.unsqueeze(2)))

    return write_words
