"""The kernel in Triton: a whole pass over θ as one launch.

The arithmetic is that of ``eager.py``, ``gaussian.py``, ``rademacher.py`` and ``rounding.py``,
operation by operation, with their constants. Importing this module requires Triton.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import math

import triton
import triton.language as tl

from zoopt.directions.kernel import gaussian, generator, plan, rademacher

_BLOCK = tl.constexpr(generator.BLOCK)
_COLUMNS = tl.constexpr(plan.COLUMNS)
_SHIFTS = tl.constexpr(generator.SHIFTS)
_FACTORS = tl.constexpr(generator.FACTORS)
_SIGN_BIT, _ONE = tl.constexpr(generator.SIGN_BIT), tl.constexpr(rademacher.ONE)
_LOG, _SIN, _COS = (tl.constexpr(part) for part in (gaussian.LOG, gaussian.SIN, gaussian.COS))
_SQRT_HALF_BITS = tl.constexpr(gaussian.SQRT_HALF_BITS)
_MINUS_TWICE_LOG_2 = tl.constexpr(-2.0 * math.log(2.0))
_HALF_BLOCK = tl.constexpr(generator.HALF_BLOCK)
_ALIGNED = tl.constexpr(16)
"""Bytes that a thread reads or writes at once."""


@triton.jit(do_not_specialize=["count"])
def add_to_pieces(
    table,
    owners,
    numbers,
    results,
    count,
    unit: tl.constexpr,
    dtype: tl.constexpr,
    terms: tl.constexpr,
    stochastic: tl.constexpr,
    blocks: tl.constexpr,
):
    """A tile of one piece.

    Args:
        table: int64 of shape (pieces, COLUMNS).
        owners: int32, the piece of each tile.
        numbers: int32: the bits of decay and coefficients, and for each piece the keys of its terms
            and of its rounding.
        results: what addresses of results count from.
        count: the number of terms, if it is not compiled for a number.
        unit: the function that makes z.
        dtype: of the elements.
        terms: the number of terms that it is compiled for; 0 for any.
        stochastic: whether results are rounded at random.
        blocks: in a tile.
    """
    program = tl.program_id(0)
    piece = tl.load(owners + program)
    entry = table + piece * _COLUMNS
    tile = program - tl.load(entry + 5).to(tl.int32)
    first_block = tl.load(entry + 3).to(tl.int32) + tile * blocks
    position = tile.to(tl.int64) * (blocks * _BLOCK) - tl.load(entry + 4)
    size: tl.constexpr = dtype.primitive_bitwidth // 8
    source = tl.load(entry) + position * size
    into = results.to(tl.int64) + tl.load(entry + 1) + position * size
    left = tl.load(entry + 2) - position
    if terms > 0:
        count = terms
    keys = numbers + 1 + count + piece * (2 * (count + stochastic))

    # A thread's elements differ in the first dimension, so it has several rows of one column.
    block = tl.arange(0, blocks)[None, :, None, None]
    row = _rows(8)
    column = tl.arange(0, 16)[None, None, None, :]
    within = block * _BLOCK + row * 16 + column
    whole = (position >= 0) & (left >= blocks * _BLOCK) & ((source | into) % _ALIGNED == 0)
    if whole:
        theta = tl.load(_aligned(source, dtype) + within)
    else:
        inside = _inside(within, position, left, blocks)
        theta = tl.load(source.to(tl.pointer_type(dtype)) + within, mask=inside)

    acc = theta.to(tl.float32) * _number(numbers)
    for k in tl.static_range(terms):
        z = unit(first_block + block, row, column, keys + 2 * k)
        acc = acc + z * _number(numbers + 1 + k)
    if terms == 0:
        for k in range(count):
            z = unit(first_block + block, row, column, keys + 2 * k)
            acc = acc + z * _number(numbers + 1 + k)
    if stochastic:
        word = _rounding_word(first_block + block, column, keys + 2 * count)
        acc = _stochastic_round(acc, dtype, word)
    result = acc.to(dtype)

    if whole:
        tl.store(_aligned(into, dtype) + within, result)
    else:
        inside = _inside(within, position, left, blocks)
        tl.store(into.to(tl.pointer_type(dtype)) + within, result, mask=inside)


@triton.jit
def _rows(fours: tl.constexpr):
    """Numbers of the first rows of a block, of which a thread has every fourth."""
    return tl.arange(0, fours)[:, None, None, None] * 4 + tl.arange(0, 4)[None, None, :, None]


@triton.jit
def _inside(within, position, left, blocks: tl.constexpr):
    """Which elements of a tile are the piece's."""
    start = tl.maximum(-position, 0).to(tl.int32)
    stop = tl.minimum(left, blocks * _BLOCK).to(tl.int32)
    return (within >= start) & (within < stop)


@triton.jit
def _aligned(address, dtype: tl.constexpr):
    return tl.multiple_of(address.to(tl.pointer_type(dtype)), _ALIGNED)


@triton.jit
def _number(place):
    return tl.load(place).to(tl.float32, bitcast=True)


# ------------------------------------------------------------------------------------------- words


@triton.jit
def _shift_right(x, bits: tl.constexpr):
    return (x >> bits) & ((1 << (32 - bits)) - 1)


@triton.jit
def _mix32(x):
    x = x ^ _shift_right(x, _SHIFTS[0])
    x = x * _FACTORS[0]
    x = x ^ _shift_right(x, _SHIFTS[1])
    x = x * _FACTORS[1]
    return x ^ _shift_right(x, _SHIFTS[2])


@triton.jit
def _random_word(counter, key):
    return _random_word_under(counter, tl.load(key), tl.load(key + 1))


@triton.jit
def _random_word_under(counter, first, second):
    return _mix32(_mix32(counter ^ first) + second)


# ------------------------------------------------------------------------------------------- units


@triton.jit
def _polynomial(coefficients: tl.constexpr, x):
    value = coefficients[0] * x + coefficients[1]
    for i in tl.static_range(2, len(coefficients.value)):
        value = value * x + coefficients[i]
    return value


@triton.jit
def _minus_twice_log(x):
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - _SQRT_HALF_BITS) >> 23
    m = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    return m * _polynomial(_LOG, m) + exponent.to(tl.float32) * _MINUS_TWICE_LOG_2


@triton.jit
def _gaussian(block, row, column, key):
    offset = block * _BLOCK + _rows(4) * 16 + column
    second = _random_word(offset + _HALF_BLOCK, key)
    u = ((_random_word(offset, key) & 0x7FFFFFFF).to(tl.float32) + 0.5) * 2.0**-31
    radius = tl.sqrt_rn(_minus_twice_log(u))
    x = (second << 1).to(tl.float32) * 2.0**-31
    square = x * x
    sign = second & _SIGN_BIT
    cosine = (_polynomial(_COS, square) * radius).to(tl.int32, bitcast=True) ^ sign
    sine = (_polynomial(_SIN, square) * (x * radius)).to(tl.int32, bitcast=True) ^ sign
    return _both(cosine, sine).to(tl.float32, bitcast=True)


@triton.jit
def _both(low, high):
    """The lower and the upper half of blocks, put together."""
    joined = tl.permute(tl.join(low, high), (4, 0, 1, 2, 3))
    return tl.reshape(joined, (8, low.shape[1], low.shape[2], low.shape[3]))


@triton.jit
def _rademacher(block, row, column, key):
    word = _random_word(block * 16 + column, key)
    return (((word << row) & _SIGN_BIT) | _ONE).to(tl.float32, bitcast=True)


UNITS = {"gaussian": _gaussian, "rademacher": _rademacher}
"""Functions that make z, by the unit's name."""


# ---------------------------------------------------------------------------------------- rounding


@triton.jit(do_not_specialize=["first", "second", "offset", "length"])
def round_at_random(
    values, into, first, second, offset, length, dtype: tl.constexpr, size: tl.constexpr
):
    """A run of fp32 numbers, rounded to a tensor in half precision.

    Args:
        values: the numbers.
        into: where they go.
        first: a word of the key.
        second: the other.
        offset: of the first number within its segment.
        length: how many there are.
        dtype: of what they are rounded to.
        size: of a tile.
    """
    at = tl.program_id(0) * size + tl.arange(0, size)
    inside = at < length
    counter = offset + at
    word = _random_word_under(counter & ~_HALF_BLOCK, first, second)
    word = tl.where((counter & _HALF_BLOCK) == 0, word, word >> 16)
    rounded = _stochastic_round(tl.load(values + at, mask=inside), dtype, word)
    tl.store(into + at, rounded.to(dtype), mask=inside)


@triton.jit
def _rounding_word(block, column, key):
    """A word for two elements, 16 rows apart."""
    word = _random_word(block * _BLOCK + _rows(4) * 16 + column, key)
    return _both(word, word >> 16)


@triton.jit
def _stochastic_round(acc, dtype: tl.constexpr, word):
    dropped: tl.constexpr = 16 if dtype == tl.bfloat16 else 13
    noise = word & ((1 << dropped) - 1)
    bits = (acc.to(tl.int32, bitcast=True) + noise) & -(1 << dropped)
    rounded = bits.to(tl.float32, bitcast=True)
    if dtype == tl.float16:
        fixed = tl.floor(acc * 2.0**24 + noise.to(tl.float32) * 2.0**-dropped) * 2.0**-24
        rounded = tl.where(tl.abs(acc) < 2.0**-14, fixed, rounded)
        rounded = tl.where(tl.abs(acc) > 65504.0, acc, rounded)
    return tl.where(tl.abs(acc) < float("inf"), rounded, acc)
