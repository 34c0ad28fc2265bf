"""The fused kernel: θ ← decay · θ + Σ_k c_k z(s_k), one read and one write of θ, no buffer for z.

There is one source, in plain torch integer operations. ``torch.compile`` turns it into fused C++ on
CPU and Triton on CUDA; eager execution of the same source, in chunks that stay in cache, is the
reference and the fallback. On CPU the two agree bit for bit, because every operation in the source
is exact or correctly rounded and Inductor compiles C++ with contraction off.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoopt.directions import compilation, generator
from zoopt.directions.generator import (
    BLOCK,
    BLOCK_BITS,
    NOISE,
    ROUNDING,
    Unit,
    key,
    offsets,
    random_word,
    scalar,
    segments,
)
from zoopt.directions.rounding import HALF, accumulator, stochastic_round
from zoopt.interfaces import Terms

KERNEL_VERSION = 1
"""Changes whenever z(seed) or the arithmetic of the update does. Written in every log."""

_EAGER_CHUNK = 1 << 16
_WIDE_CHUNK = 1 << 20
_UNROLL = 8


def _accumulate(
    theta: Tensor, values: Callable[[Tensor], Tensor], keys: Tensor, coefficients: Tensor
) -> Tensor:
    """The sum, in the precision of ``coefficients``, of which the first is the decay."""
    acc = theta.to(coefficients.dtype) * coefficients[0]
    for k in range(keys.shape[0]):
        acc = acc + values(keys[k]).to(coefficients.dtype) * coefficients[k + 1]
    return acc


@functools.cache
def _make_source(unit: Unit, blocked: bool, stochastic: bool) -> compilation.Source:
    """The kernel for a family: what is compiled, and what eager execution runs as it stands."""

    def source(
        theta: Tensor, first: Tensor, keys: Tensor, coefficients: Tensor, rounding: Tensor
    ) -> None:
        if blocked and unit.blocks is not None:
            blocks, n = unit.blocks, theta.shape[0] // BLOCK
            tiles = theta.view(n, 32, 16)
            acc = _accumulate(
                tiles, lambda key: blocks(first >> BLOCK_BITS, n, key), keys, coefficients
            ).view(-1)
        else:
            where = offsets(theta, first)
            acc = _accumulate(theta, lambda key: unit.at(where, key), keys, coefficients)
        if stochastic:
            word = random_word(offsets(theta, first), rounding)
            acc = stochastic_round(acc, theta.dtype, word)
        theta.copy_(acc)

    return source


@dataclass(frozen=True)
class _Launch:
    """One call of the source: a run of elements within a segment, and up to _UNROLL terms."""

    unit: Unit
    keys: Tensor
    coefficients: Tensor
    rounding: Tensor
    stochastic: bool
    compiled: bool

    def __call__(self, theta: Tensor, first: int) -> None:
        # In half precision Inductor writes a blocked sum to memory first, in fp32.
        blocked = self.unit.blocks is not None and not (self.compiled and theta.dtype in HALF)
        aligned = blocked and first % BLOCK == 0
        body = theta.shape[0] // BLOCK * BLOCK if aligned else 0
        if body:
            self._run(theta[:body], first, blocked=True)
        if body < theta.shape[0]:
            self._run(theta[body:], first + body, blocked=False)

    def _run(self, theta: Tensor, first: int, blocked: bool) -> None:
        rest = (self.keys, self.coefficients, self.rounding)
        variant = compilation.Variant(
            self.unit.name, blocked, self.stochastic, len(self.keys), theta.dtype, theta.device.type
        )
        source = _make_source(self.unit, blocked, self.stochastic)
        kernel = compilation.kernel(variant, source) if self.compiled else None
        if kernel is not None:
            kernel(theta, scalar(first, theta.device), *rest)
            return
        for start in range(0, theta.shape[0], _EAGER_CHUNK):
            source(theta[start : start + _EAGER_CHUNK], scalar(first + start, theta.device), *rest)


def _launches(
    piece: Tensor,
    unit: Unit,
    terms: Terms,
    decay: float,
    index: int,
    number: int,
    stochastic: bool,
    compiled: bool,
) -> list[_Launch]:
    """The terms in launches of 1, 2, 4 or 8, the last one filled up with zero coefficients.

    Rounding is keyed by the first seed, also where its coefficient is 0 and there is only decay:
    the same noise at every step would move the same weights the same way.
    """
    device, launches = piece.device, []
    rounding = key(terms[0][0] if terms else 0, index, number, ROUNDING, device)
    terms = tuple((seed, c) for seed, c in terms if c != 0.0)
    for start in range(0, max(len(terms), 1), _UNROLL):
        part = terms[start : start + _UNROLL]
        size = 1 << max(len(part) - 1, 0).bit_length()
        part = part + ((0, 0.0),) * (size - len(part))
        keys = [key(seed, index, number, NOISE, device) for seed, _ in part]
        coefficients = [decay if start == 0 else 1.0, *(c for _, c in part)]
        numbers = torch.tensor(coefficients, dtype=accumulator(piece.dtype), device=device)
        launches.append(_Launch(unit, torch.stack(keys), numbers, rounding, stochastic, compiled))
    return launches


@torch.no_grad()
def add_(
    tensor: Tensor,
    index: int,
    terms: Terms,
    unit: Unit,
    *,
    first: int = 0,
    decay: float = 1.0,
    stochastic_rounding: bool = False,
    compiled: bool = False,
) -> None:
    """tensor ← decay · tensor + Σ_k c_k z(s_k)[index], accumulated in fp32 and rounded once.

    Args:
        tensor: any real floating-point tensor, of any shape and strides. A tensor that is not
            contiguous passes through a contiguous copy of itself.
        index: the tensor's position in θ, part of the key.
        terms: (seed, coefficient) pairs.
        unit: the family that z is drawn from.
        first: offset of the tensor's first element, where it is a piece of a larger tensor.
        decay: what the tensor is multiplied with first.
        stochastic_rounding: round fp16 and bf16 results up or down at random so that the mean is
            exact; otherwise to nearest. Without effect on fp32 and fp64.
        compiled: run the compiled kernel, where one can be made.
    """
    if not tensor.dtype.is_floating_point:
        raise TypeError(
            f"cannot add noise to a tensor of dtype {tensor.dtype}: zoopt tunes floating-point "
            "parameters; leave quantized or integer ones out with params=..."
        )
    if tensor.numel() == 0 or (decay == 1.0 and all(c == 0.0 for _, c in terms)):
        return
    target = tensor.detach()
    flat = target.contiguous().view(-1)
    stochastic = stochastic_rounding and target.dtype in HALF
    for number, piece, offset in segments(flat, first):
        launches = _launches(piece, unit, terms, decay, index, number, stochastic, compiled)
        if len(launches) == 1:
            launches[0](piece, offset)
        else:
            _add_wide(piece, offset, launches, stochastic)
    if flat.data_ptr() != target.data_ptr():
        target.copy_(flat.view(target.shape))


def _add_wide(piece: Tensor, first: int, launches: list[_Launch], stochastic: bool) -> None:
    """Many terms: chunk by chunk, each summed completely while it is in cache, rounded once."""
    last = launches[-1]
    for start in range(0, piece.shape[0], _WIDE_CHUNK):
        chunk = piece[start : start + _WIDE_CHUNK]
        acc = chunk.to(last.coefficients.dtype)
        for launch in launches:
            replace(launch, stochastic=False)(acc, first + start)
        if stochastic:
            where = offsets(acc, scalar(first + start, acc.device))
            chunk.copy_(stochastic_round(acc, chunk.dtype, random_word(where, last.rounding)))
        elif acc.data_ptr() != chunk.data_ptr():
            chunk.copy_(acc)


@torch.no_grad()
def add_to_rows(
    rows: Tensor, ids: Tensor, numel: int, index: int, terms: Terms, unit: Unit
) -> Tensor:
    """The given rows of a matrix as :func:`add_` on the whole matrix would leave them.

    Args:
        rows: shape (..., width), the rows as they are.
        ids: shape (...), which rows of the matrix they are.
        numel: number of elements of the whole matrix.
        index: the matrix's position in θ.
        terms: (seed, coefficient) pairs.
        unit: the family that z is drawn from.
    """
    width = rows.shape[-1]
    places = ids.to(torch.int64).unsqueeze(-1) * width + torch.arange(width, device=rows.device)
    acc = rows.to(accumulator(rows.dtype))
    for seed, c in terms:
        z = torch.zeros_like(acc)
        for number in range(-(-numel // generator.SEGMENT)):
            values = unit.at(
                (places % generator.SEGMENT).to(torch.int32),
                key(seed, index, number, NOISE, rows.device),
            )
            z = torch.where(places // generator.SEGMENT == number, values.to(acc.dtype), z)
        acc = acc + z * torch.tensor(c, dtype=acc.dtype)
    return acc.to(rows.dtype)
