"""An fp32 bias added to a half-precision matrix, on a GPU by a kernel that reads whole vectors.

Torch's ``add_`` of two dtypes is the reference, and what runs elsewhere.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from zoopt.directions.triton_kernel import passes, source

_ROWS, _COLUMNS = 16, 512
"""Of a tile."""


def add_bias(out: Tensor, bias: Tensor) -> Tensor:
    """out ← out + bias, computed in fp32 and rounded to what out is.

    Args:
        out: shape (..., width), in half precision; written.
        bias: shape (width,), or another that out's has room for; in fp32.
    """
    rows = out.ndim > 1 and bias.ndim == 1 and out.is_contiguous() and bias.is_contiguous()
    if out.is_cuda and rows and out.numel() and _works(out.dtype, out.device):
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
    return source() is not None and passes(
        lambda: _check(dtype, device), "adds biases of half-precision models with torch, slower"
    )


def _check(dtype: torch.dtype, device: torch.device) -> None:
    x = torch.linspace(-9, 9, 37 * 1000, device=device).sinh().view(37, 1000).to(dtype)
    bias = torch.linspace(-1, 1, 1000, device=device)
    found = x.clone()
    _launch(found, bias)
    if not torch.equal(found, x.add_(bias)):
        raise RuntimeError("it does not give the numbers of torch's add_")
