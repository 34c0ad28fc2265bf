"""Stochastic rounding: up or down at random, so that the mean of many updates is exact.

In half precision most updates are smaller than half a unit in the last place of the weight, and
rounding to nearest would lose them all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoopt.directions.kernel import triton_check
from zoopt.directions.kernel.device import current, uploaded
from zoopt.directions.kernel.generator import BLOCK, ROUNDING, SEGMENT, random_word, spans
from zoopt.seeds import key_words

HALF = (torch.float16, torch.bfloat16)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over a tensor are accumulated: fp64 for fp64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


_CHUNK, _GPU_CHUNK = 1 << 16, 1 << 24
"""Elements rounded at once: few enough for a CPU's cache; on a GPU, for few launches."""
_TILE = 1 << 10

PER_BLOCK = BLOCK // 2
"""Words that a block's noise is made from. Elements at this distance share a word."""


def noise_at(offsets: Tensor, key: Tensor) -> Tensor:
    """16 random bits at int32 offsets of any shape, under a key of two int32 words."""
    word = random_word(offsets & ~PER_BLOCK, key)
    return torch.where((offsets & PER_BLOCK) == 0, word, word >> 16)


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


@torch.no_grad()
def round_into(tensor: Tensor, value: Tensor, index: int, seed: int, first: int = 0) -> None:
    """tensor ← value, rounded stochastically if the tensor is in half precision.

    Args:
        tensor: a parameter, or a run of its elements.
        value: its new value, in fp32 or fp64, of the same shape.
        index: the parameter's position in θ.
        seed: what the rounding noise is drawn from.
        first: offset of the run's first element within the parameter.
    """
    if tensor.dtype not in HALF:
        tensor.copy_(value)
        return
    flat = value.contiguous().view(-1)
    straight = tensor.is_contiguous()
    rounded = tensor.view(-1) if straight else torch.empty_like(flat, dtype=tensor.dtype)
    round_run = _round_in_one_launch if _works(tensor) else _round_in_pieces
    for number, start, stop, offset in spans(len(flat), first):
        under = key_words(seed, index, number, ROUNDING)
        round_run(rounded[start:stop], flat[start:stop], under, offset)
    if not straight:
        tensor.copy_(rounded.view(tensor.shape))


def _round_in_pieces(into: Tensor, flat: Tensor, under: tuple[int, int], offset: int) -> None:
    """Rounds a run of elements within a segment; ``under`` is the segment's key."""
    words = uploaded(under, torch.int32, flat.device)
    step = _CHUNK if flat.device.type == "cpu" else _GPU_CHUNK
    for begin in range(0, len(flat), step):
        piece = flat[begin : begin + step]
        within = torch.arange(len(piece), dtype=torch.int32, device=flat.device)
        word = noise_at(within + (offset + begin), words)
        into[begin : begin + len(piece)] = stochastic_round(piece, into.dtype, word)


def _round_in_one_launch(into: Tensor, flat: Tensor, under: tuple[int, int], offset: int) -> None:
    written: Any = triton_check.kernels(triton_check.PASSES)
    dtype = getattr(written.tl, str(into.dtype).removeprefix("torch."))
    with current(flat.device):
        written.round_at_random[-(-len(flat) // _TILE),](
            flat,
            into,
            *under,
            offset,
            len(flat),
            dtype=dtype,
            size=_TILE,
            enable_fp_fusion=False,  # round products and sums separately
            sanitize_overflow=False,  # integers wrap
        )
    torch.autograd.graph.increment_version(into)


def _works(tensor: Tensor) -> bool:
    instead = "rounds updates in many launches, slowly"
    return triton_check.works(triton_check.PASSES, _check, tensor.dtype, tensor.device, instead)


def _check(dtype: torch.dtype, device: torch.device) -> None:
    values = torch.linspace(-12, 12, 5000, device=device).sinh()
    for offset, scale in ((0, 1.0), (700, 1e-6), (SEGMENT - 5000, 3e4)):
        found, expected = torch.empty(2, 5000, dtype=dtype, device=device)
        for into, round_run in ((found, _round_in_one_launch), (expected, _round_in_pieces)):
            round_run(into, values * scale, (-7, 8), offset)
        if not torch.equal(found.view(torch.int16), expected.view(torch.int16)):
            raise RuntimeError("its results differ from those of eager execution")
