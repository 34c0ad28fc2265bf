"""The generator: a random word for each element, as a pure function of the element's position.

*Counter-based* (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): there is no
state, so noise does not depend on device, thread count, chunking or neighbours. The word is a hash
of the offset within a segment of 2³⁰ elements, under a key derived from (seed, tensor index,
segment number, purpose), so tensors of any size are addressable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoopt.directions.kernel.device import uploaded
from zoopt.seeds import as_int32, key_words

SEGMENT = 1 << 30
"""Elements that share a key."""

BLOCK = 1 << 9
"""Elements that are generated together: for signs, 32 bits of each of 16 words."""

HALF_BLOCK = BLOCK // 2
"""Elements at this distance share the words of a Gaussian pair, and a word of rounding noise."""

SIGN_BIT = as_int32(0x80000000)
"""Of a word, and of an fp32 number."""

SHIFTS, FACTORS = (16, 15, 16), (as_int32(0x7FEB352D), as_int32(0x846CA68B))
"""Constants of the hash (Wellons 2018, lowbias32)."""

NOISE, ROUNDING, LEFT, RIGHT = range(4)
"""Purpose of a word: components of z, rounding, and the two factors of a low-rank z."""


@dataclass(frozen=True)
class Unit:
    """How a family generates z, before scaling.

    Attributes:
        name: what compiled kernels know it by.
        at: returns z (fp32) at int32 offsets of any shape, under a key of two int32 words.
    """

    name: str
    at: Callable[[Tensor, Tensor], Tensor]


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch shifts signed integers arithmetically."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _mix32(x: Tensor) -> Tensor:
    """lowbias32, a 32-bit bijection with an avalanche bias of 0.17 (Wellons 2018)."""
    x = x ^ _shift_right(x, SHIFTS[0])
    x = x * FACTORS[0]
    x = x ^ _shift_right(x, SHIFTS[1])
    x = x * FACTORS[1]
    return x ^ _shift_right(x, SHIFTS[2])


def random_word(counter: Tensor, key: Tensor) -> Tensor:
    """32 random bits for each counter (int32) under a key of two int32 words.

    The second word is added between two rounds of mixing: with one round, or one word, the streams
    of neighbouring seeds would be permutations of each other.
    """
    return _mix32(_mix32(counter ^ key[0]) + key[1])


def spans(length: int, first: int) -> Iterator[tuple[int, int, int, int]]:
    """(segment number, start, stop, offset of the first element in the segment) by segment."""
    position, end = first, first + length
    while position < end:
        number, offset = divmod(position, SEGMENT)
        stop = min(end, (number + 1) * SEGMENT)
        yield number, position - first, stop - first, offset
        position = stop


def key(seed: int, index: int, number: int, purpose: int, device: torch.device) -> Tensor:
    """The key of a segment: two int32 words."""
    words = key_words(seed, index, number, purpose)
    return uploaded(words, torch.int32, device)
