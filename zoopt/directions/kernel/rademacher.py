"""Random signs: one 32-bit word gives 32 of them."""

from __future__ import annotations

import torch
from torch import Tensor

from zoopt.directions.kernel.generator import SIGN_BIT, Unit, random_word

ONE = 0x3F800000


def _sign(word: Tensor, row: Tensor) -> Tensor:
    """±1 as fp32: bit 31 − row of the word becomes the sign bit of 1.0."""
    return (((word << row) & SIGN_BIT) | ONE).view(torch.float32)


def _at(offsets: Tensor, key: Tensor) -> Tensor:
    """A block of 512 elements is 32 rows of 16; column j of all rows shares word 16·block + j."""
    word = random_word((offsets >> 9) * 16 + (offsets & 15), key)
    return _sign(word, (offsets >> 4) & 31)


def rademacher_words(blocks: Tensor, key: Tensor) -> Tensor:
    """The 16 words of blocks, shape (m, 16), from their numbers (m, 1) and keys (2, m, 1)."""
    column = torch.arange(16, dtype=torch.int32, device=blocks.device)
    return random_word(blocks * 16 + column, key)


def signs_of(words: Tensor) -> Tensor:
    """±1 for blocks, shape (m, 32, 16), from their words (m, 16)."""
    rows = torch.arange(32, dtype=torch.int32, device=words.device).view(32, 1)
    return _sign(words.unsqueeze(-2), rows)


RADEMACHER = Unit("rademacher", _at)
