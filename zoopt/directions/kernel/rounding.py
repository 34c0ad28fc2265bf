"""Stochastic rounding: up or down at random, so that the mean of many updates is exact.

In half precision most updates are smaller than half a unit in the last place of the weight, and
rounding to nearest would lose them all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoopt.directions.kernel.generator import HALF_BLOCK, random_word

HALF = (torch.float16, torch.bfloat16)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over a tensor are accumulated: fp64 for fp64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def noise_at(offsets: Tensor, key: Tensor) -> Tensor:
    """16 random bits at int32 offsets of any shape, under a key of two int32 words."""
    word = random_word(offsets & ~HALF_BLOCK, key)
    return torch.where((offsets & HALF_BLOCK) == 0, word, word >> 16)


def stochastic_round(acc: Tensor, dtype: torch.dtype, word: Tensor) -> Tensor:
    """Rounds fp32 to a neighbour in ``dtype``, up with the probability that preserves the mean.

    Args:
        acc: the fp32 values.
        dtype: fp16 or bf16.
        word: int32, whose low 13 (fp16) or 16 (bf16) bits are random.
    """
    dropped = 16 if dtype == torch.bfloat16 else 13
    noise = word & ((1 << dropped) - 1)
    rounded = ((acc.view(torch.int32) + noise) & -(1 << dropped)).view(torch.float32)
    if dtype == torch.float16:
        # Below 2^-14 fp16 is a fixed-point format with a spacing of 2^-24.
        fixed = torch.floor(acc * 2.0**24 + noise.to(torch.float32) * 2.0**-dropped) * 2.0**-24
        rounded = torch.where(acc.abs() < 2.0**-14, fixed, rounded)
        rounded = torch.where(acc.abs() > 65504.0, acc, rounded)  # the largest, not infinity
    return torch.where(torch.isfinite(acc), rounded, acc).to(dtype)
