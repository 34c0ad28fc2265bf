"""Stochastic rounding: up or down at random, so that the mean of many updates is exact.

In half precision most updates are smaller than half a unit in the last place of the weight, and
rounding to nearest would lose them all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoopt.directions.generator import BLOCK, ROUNDING, key, random_word, spans, words_of

HALF = (torch.float16, torch.bfloat16)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What sums over a tensor of a dtype are accumulated in: fp64 for fp64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


_CHUNK, _GPU_CHUNK = 1 << 16, 1 << 24
"""Elements rounded at once: what stays in cache, and few launches on a GPU."""

PER_BLOCK = BLOCK // 2
"""Words that a block's noise is made from. Elements that are as far apart share one."""


def rounding_words(blocks: Tensor, key: Tensor) -> Tensor:
    """Those words, shape (m, 256), of blocks of given numbers (m, 1) under keys (2, m, 1)."""
    return words_of(blocks, key, PER_BLOCK, BLOCK)


def noise_of(words: Tensor) -> Tensor:
    """Random bits for blocks, shape (n, 32, 16), from their words (n, 256): 16 for each element."""
    half = torch.tensor([0, 16], dtype=torch.int32, device=words.device).view(2, 1, 1)
    return (words.view(-1, 1, 16, 16) >> half).view(-1, 32, 16)


def _noise_at(offsets: Tensor, key: Tensor) -> Tensor:
    """The same at int32 offsets of any shape."""
    word = random_word(offsets & ~PER_BLOCK, key)
    return torch.where((offsets & PER_BLOCK) == 0, word, word >> 16)


def stochastic_round(acc: Tensor, dtype: torch.dtype, word: Tensor) -> Tensor:
    """Rounds fp32 to a neighbour in ``dtype``, up with the probability that keeps the mean.

    Args:
        acc: the numbers.
        dtype: fp16 or bf16.
        word: int32, of which the low 13 or 16 bits are random.
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


@torch.no_grad()
def round_into(tensor: Tensor, value: Tensor, index: int, seed: int, first: int = 0) -> None:
    """tensor ← value, rounded stochastically where the tensor is in half precision.

    Args:
        tensor: a parameter, or a run of its elements.
        value: what it should be, in fp32 or fp64, of the same shape.
        index: the parameter's position in θ.
        seed: what the rounding noise is drawn from.
        first: offset of the run's first element within the parameter.
    """
    if tensor.dtype not in HALF:
        tensor.copy_(value)
        return
    flat, device = value.contiguous().view(-1), value.device
    rounded = torch.empty_like(flat, dtype=tensor.dtype)
    step = _CHUNK if device.type == "cpu" else _GPU_CHUNK
    for number, start, stop, offset in spans(len(flat), first):
        under = key(seed, index, number, ROUNDING, device)
        for begin in range(start, stop, step):
            piece = flat[begin : min(begin + step, stop)]
            within = torch.arange(len(piece), dtype=torch.int32, device=device)
            word = _noise_at(within + (offset + begin - start), under)
            rounded[begin : begin + len(piece)] = stochastic_round(piece, tensor.dtype, word)
    tensor.copy_(rounded.view(tensor.shape))
