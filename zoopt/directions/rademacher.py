"""Rademacher directions: every component +1 or −1 with equal probability.

E[z zᵀ] = I, and of all distributions with independent components the estimate has the least
variance with this one (Spall 1992). One 32-bit word gives 32 signs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoopt.directions.dense import DenseDirection
from zoopt.directions.generator import Unit, random_word
from zoopt.seeds import as_int32

_SIGN_BIT = as_int32(0x80000000)
_ONE = 0x3F800000


def _sign(word: Tensor, row: Tensor) -> Tensor:
    """±1 as fp32: bit 31 − row of the word becomes the sign bit of 1.0."""
    return (((word << row) & _SIGN_BIT) | _ONE).view(torch.float32)


def _at(offsets: Tensor, key: Tensor) -> Tensor:
    """A block of 512 elements is 32 rows of 16; column j of all rows shares word 16·block + j."""
    word = random_word((offsets >> 9) * 16 + (offsets & 15), key)
    return _sign(word, (offsets >> 4) & 31)


def rademacher_blocks(first: Tensor, n: int, key: Tensor) -> Tensor:
    """±1 for n blocks of 512, shape (n, 32, 16), with the dimensions of many keys before that."""
    counter = torch.arange(n * 16, dtype=torch.int32, device=key.device).view(n, 1, 16) + first * 16
    rows = torch.arange(32, dtype=torch.int32, device=key.device).view(1, 32, 1)
    return _sign(random_word(counter, key), rows)


RADEMACHER = Unit("rademacher", _at, rademacher_blocks)


class Rademacher(DenseDirection):
    """z with independent components of ±1."""

    name = "rademacher"
    unit = RADEMACHER
