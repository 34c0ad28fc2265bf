"""A tensor ← values from elsewhere (low rank, Adam), in half precision rounded at random.

The noise is that of an update in one pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoopt.directions.kernel import compilation, cpp_launch, triton_check
from zoopt.directions.kernel.check import require_same_bits
from zoopt.directions.kernel.device import current, uploaded
from zoopt.directions.kernel.generator import ROUNDING, SEGMENT, spans
from zoopt.directions.kernel.rounding import HALF, noise_at, stochastic_round
from zoopt.seeds import key_words

_CHUNK, _GPU_CHUNK = 1 << 16, 1 << 24
"""Elements rounded at once: few enough for a CPU's cache; on a GPU, for few launches."""
_TILE = 1 << 10

_Round = Callable[[Tensor, Tensor, tuple[int, int], int], None]
"""Rounds a run of elements within a segment: result, values, the segment's key, first offset."""


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
    flat = value.to(torch.float32).contiguous().view(-1)
    straight = tensor.is_contiguous()
    rounded = tensor.view(-1) if straight else torch.empty_like(flat, dtype=tensor.dtype)
    round_run = _kernel(tensor.dtype, tensor.device) if compilation.allowed() else _in_torch
    for number, start, stop, offset in spans(len(flat), first):
        under = key_words(seed, index, number, ROUNDING)
        round_run(rounded[start:stop], flat[start:stop], under, offset)
    if not straight:
        tensor.copy_(rounded.view(tensor.shape))


@functools.cache
def _kernel(dtype: torch.dtype, device: torch.device) -> _Round:
    """The compiled kernel for a dtype and a device; the reference if there is none."""
    compiled: _Round
    if device.type in triton_check.DEVICES and triton_check.kernels(triton_check.PASSES):
        kernel, compiled, instead = "Triton", _in_triton, "rounds updates in many launches, slowly"
    elif device.type == "cpu" and cpp_launch.library():
        kernel, compiled, instead = "C++", cpp_launch.round_at_random, cpp_launch.INSTEAD
    else:
        return _in_torch
    check = functools.partial(_check, compiled, dtype, device)
    return compiled if compilation.passes(check, kernel, instead) else _in_torch


def _in_torch(into: Tensor, flat: Tensor, under: tuple[int, int], offset: int) -> None:
    words = uploaded(under, torch.int32, flat.device)
    step = _CHUNK if flat.device.type == "cpu" else _GPU_CHUNK
    for begin in range(0, len(flat), step):
        piece = flat[begin : begin + step]
        within = torch.arange(len(piece), dtype=torch.int32, device=flat.device)
        word = noise_at(within + (offset + begin), words)
        into[begin : begin + len(piece)] = stochastic_round(piece, into.dtype, word)


def _in_triton(into: Tensor, flat: Tensor, under: tuple[int, int], offset: int) -> None:
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


def _check(compiled: _Round, dtype: torch.dtype, device: torch.device) -> None:
    values = torch.linspace(-12, 12, 5000, dtype=torch.float32, device=device).sinh()
    for offset, scale in ((0, 1.0), (700, 1e-6), (SEGMENT - 5000, 3e4)):
        found, expected = torch.empty(2, 5000, dtype=dtype, device=device)
        for into, round_run in ((found, compiled), (expected, _in_torch)):
            round_run(into, values * scale, (-7, 8), offset)
        require_same_bits(found, expected)
