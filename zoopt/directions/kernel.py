"""The fused kernel: θ ← decay · θ + Σ_k c_k z(s_k), one read and one write of θ, no buffer for z.

The noise is *counter-based* (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"):
the value at an element is a pure function of (seed, tensor index, element offset), so it does not
depend on device, thread count, chunking or neighbours, and no generator state exists.

There is one source, in plain torch integer operations. ``torch.compile`` turns it into fused C++ on
CPU and Triton on CUDA; eager execution of the same source, in chunks that stay in cache, is the
reference and the fallback. On CPU the two agree bit for bit, because every operation in the source
is exact or correctly rounded and Inductor compiles C++ with contraction off.

Layout: an element's random word is a hash of its offset within a segment of 2³⁰ elements, under a
key drawn from (seed, tensor index, segment number), so tensors of any size are addressable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoopt.directions import compilation
from zoopt.interfaces import Terms
from zoopt.seeds import as_int32, key_words

KERNEL_VERSION = 1
"""Changes whenever z(seed) or the arithmetic of the update does. Written in every log."""

SEGMENT = 1 << 30
"""Elements that share a key."""

_BLOCK_BITS = 9
BLOCK = 1 << _BLOCK_BITS
"""Elements that a blocked family generates together: 32 bits of each of 16 words."""

_EAGER_CHUNK = 1 << 16
_WIDE_CHUNK = 1 << 20
_UNROLL = 8
_NOISE, _ROUNDING = 0, 1


@dataclass(frozen=True)
class Unit:
    """A family's z before it is scaled.

    Attributes:
        name: part of the compiled kernel's name.
        at: z (fp32) at int32 offsets of any shape, under a key of two int32 words.
        blocks: z of the n whole blocks from the given one on, broadcastable to (n, 32, 16); the
            same values as ``at``, for families that get many values from one word. None where a
            word makes one value.
    """

    name: str
    at: Callable[[Tensor, Tensor], Tensor]
    blocks: Callable[[Tensor, int, Tensor], Tensor] | None = None


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch shifts signed integers arithmetically."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _mix32(x: Tensor) -> Tensor:
    """lowbias32, a 32-bit bijection with an avalanche bias of 0.17 (Wellons 2018)."""
    x = x ^ _shift_right(x, 16)
    x = x * as_int32(0x7FEB352D)
    x = x ^ _shift_right(x, 15)
    x = x * as_int32(0x846CA68B)
    return x ^ _shift_right(x, 16)


def random_word(counter: Tensor, key: Tensor) -> Tensor:
    """32 random bits for each counter (int32) under a key of two int32 words.

    The second word enters between two rounds of mixing: with one round, or one word, the streams of
    neighbouring seeds would be permutations of each other.
    """
    return _mix32(_mix32(counter ^ key[0]) + key[1])


def _offsets(theta: Tensor, first: Tensor) -> Tensor:
    return torch.arange(theta.shape[0], dtype=torch.int32, device=theta.device) + first


def _accumulate(
    theta: Tensor, values: Callable[[Tensor], Tensor], keys: Tensor, coefficients: Tensor
) -> Tensor:
    """The sum, in the precision of ``coefficients``, of which the first is the decay."""
    acc = theta.to(coefficients.dtype) * coefficients[0]
    for k in range(keys.shape[0]):
        acc = acc + values(keys[k]).to(coefficients.dtype) * coefficients[k + 1]
    return acc


def _stochastic_round(acc: Tensor, dtype: torch.dtype, word: Tensor) -> Tensor:
    """Rounds fp32 to a neighbour in ``dtype``, up with the probability that keeps the mean."""
    dropped = 16 if dtype == torch.bfloat16 else 13
    noise = word & ((1 << dropped) - 1)
    rounded = ((acc.view(torch.int32) + noise) & -(1 << dropped)).view(torch.float32)
    if dtype == torch.float16:
        # Below 2^-14 fp16 is a fixed-point format with a spacing of 2^-24.
        fixed = torch.floor(acc * 2.0**24 + noise.to(torch.float32) * 2.0**-dropped) * 2.0**-24
        rounded = torch.where(acc.abs() < 2.0**-14, fixed, rounded)
        rounded = torch.where(acc.abs() > 65504.0, acc, rounded)  # the largest, not infinity
    return torch.where(torch.isfinite(acc), rounded, acc).to(dtype)


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
                tiles, lambda key: blocks(first >> _BLOCK_BITS, n, key), keys, coefficients
            ).view(-1)
        else:
            offsets = _offsets(theta, first)
            acc = _accumulate(theta, lambda key: unit.at(offsets, key), keys, coefficients)
        if stochastic:
            word = random_word(_offsets(theta, first), rounding)
            acc = _stochastic_round(acc, theta.dtype, word)
        theta.copy_(acc)

    return source


@dataclass(frozen=True)
class _Launch:
    """One call of the source: a run of elements within a segment, and up to _UNROLL terms."""

    unit: Unit
    device: torch.device
    keys: Tensor
    coefficients: Tensor
    rounding: Tensor
    stochastic: bool
    compiled: bool

    def __call__(self, theta: Tensor, first: int) -> None:
        aligned = self.unit.blocks is not None and first % BLOCK == 0
        body = theta.shape[0] // BLOCK * BLOCK if aligned else 0
        if body:
            self._run(theta[:body], first, blocked=True)
        if body < theta.shape[0]:
            self._run(theta[body:], first + body, blocked=False)

    def _run(self, theta: Tensor, first: int, blocked: bool) -> None:
        rest = (self.keys, self.coefficients, self.rounding)
        variant = compilation.Variant(
            self.unit.name, blocked, self.stochastic, len(self.keys), theta.dtype, self.device.type
        )
        source = _make_source(self.unit, blocked, self.stochastic)
        kernel = compilation.kernel(variant, source) if self.compiled else None
        if kernel is not None:
            kernel(theta, _scalar(first, self.device), *rest)
            return
        for start in range(0, theta.shape[0], _EAGER_CHUNK):
            source(theta[start : start + _EAGER_CHUNK], _scalar(first + start, self.device), *rest)


def _scalar(value: int, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=torch.int32, device=device)


def _launches(
    unit: Unit,
    accumulator: torch.dtype,
    device: torch.device,
    terms: Terms,
    decay: float,
    path: tuple[int, int],
    stochastic: bool,
    compiled: bool,
) -> Iterator[_Launch]:
    """The terms in launches of 1, 2, 4 or 8, the last one filled up with zero coefficients.

    Rounding is keyed by the first seed, also where its coefficient is 0 and there is only decay:
    the same noise at every step would move the same weights the same way.
    """
    first_seed = terms[0][0] if terms else 0
    rounding = torch.tensor(key_words(first_seed, *path, _ROUNDING), device=device)
    terms = tuple((seed, c) for seed, c in terms if c != 0.0)
    for start in range(0, max(len(terms), 1), _UNROLL):
        part = terms[start : start + _UNROLL]
        size = 1 << max(len(part) - 1, 0).bit_length()
        part = part + ((0, 0.0),) * (size - len(part))
        keys = [key_words(seed, *path, _NOISE) for seed, _ in part]
        coefficients = [decay if start == 0 else 1.0, *(c for _, c in part)]
        yield _Launch(
            unit,
            device,
            torch.tensor(keys, dtype=torch.int32, device=device),
            torch.tensor(coefficients, dtype=accumulator, device=device),
            rounding.to(torch.int32),
            stochastic,
            compiled,
        )


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


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
    half = target.dtype in (torch.float16, torch.bfloat16)
    stochastic = stochastic_rounding and half
    for number, piece, offset in _segments(flat, first):
        path, accumulator = (index, number), _accumulator(flat.dtype)
        launches = list(
            _launches(unit, accumulator, flat.device, terms, decay, path, stochastic, compiled)
        )
        if len(launches) == 1:
            launches[0](piece, offset)
        else:
            _add_wide(piece, offset, launches, stochastic)
    if flat.data_ptr() != target.data_ptr():
        target.copy_(flat.view(target.shape))


def _segments(flat: Tensor, first: int) -> Iterator[tuple[int, Tensor, int]]:
    """(segment number, the elements of it, offset of the first of them within the segment)."""
    position, end = first, first + flat.shape[0]
    while position < end:
        number, offset = divmod(position, SEGMENT)
        stop = min(end, (number + 1) * SEGMENT)
        yield number, flat[position - first : stop - first], offset
        position = stop


def _add_wide(piece: Tensor, first: int, launches: list[_Launch], stochastic: bool) -> None:
    """Many terms: chunk by chunk, each summed completely while it is in cache, rounded once."""
    last = launches[-1]
    for start in range(0, piece.shape[0], _WIDE_CHUNK):
        chunk = piece[start : start + _WIDE_CHUNK]
        acc = chunk.to(last.coefficients.dtype)
        for launch in launches:
            replace(launch, stochastic=False)(acc, first + start)
        if stochastic:
            offsets = _offsets(acc, _scalar(first + start, acc.device))
            chunk.copy_(_stochastic_round(acc, chunk.dtype, random_word(offsets, last.rounding)))
        elif acc.data_ptr() != chunk.data_ptr():
            chunk.copy_(acc)


@torch.no_grad()
def round_into(tensor: Tensor, value: Tensor, index: int, seed: int) -> None:
    """tensor ← value, rounded stochastically where the tensor is in half precision.

    Args:
        tensor: a parameter.
        value: what it should be, in fp32 or fp64, of the same shape.
        index: the parameter's position in θ.
        seed: what the rounding noise is drawn from.
    """
    if tensor.dtype not in (torch.float16, torch.bfloat16):
        tensor.copy_(value)
        return
    flat = value.contiguous().view(-1)
    rounded = torch.empty_like(flat, dtype=tensor.dtype)
    for number, piece, offset in _segments(flat, 0):
        key = torch.tensor(key_words(seed, index, number, _ROUNDING), dtype=torch.int32)
        word = random_word(_offsets(piece, _scalar(offset, piece.device)), key.to(piece.device))
        start = number * SEGMENT
        rounded[start : start + len(piece)] = _stochastic_round(piece, tensor.dtype, word)
    tensor.copy_(rounded.view(tensor.shape))


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
    columns = torch.arange(width, device=rows.device)
    offsets = ids.to(torch.int64).unsqueeze(-1) * width + columns
    acc = rows.to(_accumulator(rows.dtype))
    for seed, c in terms:
        z = torch.zeros_like(acc)
        for number in range((numel + SEGMENT - 1) // SEGMENT):
            key = torch.tensor(
                key_words(seed, index, number, _NOISE), dtype=torch.int32, device=rows.device
            )
            here = offsets // SEGMENT == number
            values = unit.at((offsets % SEGMENT).to(torch.int32), key)
            z = torch.where(here, values.to(acc.dtype), z)
        acc = acc + z * torch.tensor(c, dtype=acc.dtype)
    return acc.to(rows.dtype)
