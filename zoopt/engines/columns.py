"""An fp32 bias added to a half-precision matrix in one pass, as fast as a GPU's memory.

Torch's ``add_`` of two dtypes, which is the reference and what runs elsewhere, reads and writes
element by element there.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from zoopt.directions.compilation import reason
from zoopt.directions.triton_kernel import source
from zoopt.shortage import ran_out

_ROWS, _COLUMNS = 16, 512
"""Of a tile."""

log = logging.getLogger("zoopt")


def add_bias(out: Tensor, bias: Tensor) -> Tensor:
    """out ← out + bias, computed in fp32 and rounded to what out is.

    Args:
        out: shape (..., width), in half precision; written.
        bias: shape (width,), in fp32.
    """
    fits = out.is_cuda and out.ndim > 1 and out.is_contiguous() and bias.is_contiguous()
    if fits and out.numel() and _works(out.dtype, out.device):
        _launch(out, bias)
        return out
    return out.add_(bias)


def _launch(out: Tensor, bias: Tensor) -> None:
    written = source()
    assert written is not None
    width = bias.shape[0]
    rows = out.numel() // width
    grid = -(-rows // _ROWS), -(-width // _COLUMNS)
    with torch.cuda.device(out.device):
        written.add_to_rows[grid](out, bias, rows, width, _ROWS, _COLUMNS)
    torch.autograd.graph.increment_version(out)


@functools.cache
def _works(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether there is a kernel that gives what ``add_`` does, as a sample shows."""
    if source() is None:
        return False
    x = torch.linspace(-9, 9, 37 * 1000, device=device).sinh().view(37, 1000).to(dtype)
    bias = torch.linspace(-1, 1, 1000, device=device)
    try:
        found = x.clone()
        _launch(found, bias)
        if not torch.equal(found, x.clone().add_(bias)):
            raise RuntimeError("it does not give the numbers of torch's add_")
    except Exception as error:
        if ran_out(error):
            raise
        log.warning(
            "zoopt adds biases of half-precision models with torch, which gives the same numbers, "
            "slower, because its Triton kernel failed: %s",
            reason(error),
        )
        return False
    return True
