"""Biases and norms in fp32 on half-precision activations, with the result rounded once.

Torch needs several passes over the activations, some of them in fp32. On a GPU a Triton kernel
needs one; torch's operations are the reference, and the fallback.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoopt.directions.kernel import triton_check
from zoopt.directions.kernel.device import current

_SOURCE = "zoopt.engines.interception.triton_bias_and_norm"
_INSTEAD = "adds biases or computes norms of half-precision models with torch, slowly"
_ROWS, _COLUMNS = 16, 512
"""Size of a tile that a bias is added to."""
_FEW = 1 << 18
"""Number of elements up to which torch adds a bias faster than launching a Triton kernel takes."""
_WIDEST = 1 << 14
"""Length of the longest row that the kernel normalizes."""
_A_WARPS_ELEMENTS = 512


def add_bias(out: Tensor, bias: Tensor) -> Tensor:
    """out ← out + bias, computed in fp32 and rounded to out's dtype.

    Args:
        out: shape (..., width), in half precision; written.
        bias: shape (width,), or another that broadcasts to out's; in fp32.
    """
    if out.numel() > _FEW and _in_rows(out, bias) and _works(_check_bias, out):
        _add_bias(out, bias)
        return out
    return out.add_(bias)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """((x − mean) / √(variance + eps)) · weight + bias by row, in fp32, rounded to x's dtype.

    Args:
        x: shape (..., width), in half precision.
        weight: shape (width,), in fp32.
        bias: shape (width,), in fp32.
        eps: keeps the denominator from zero.
    """
    fits = x.shape[-1] <= _WIDEST and bias.is_contiguous()
    if fits and _in_rows(x, weight) and _works(_check_norm, x):
        return _layer_norm(x, weight, bias, eps)
    return F.layer_norm(x.float(), weight.shape, weight, bias, eps).to(x.dtype)


def _in_rows(rows: Tensor, vector: Tensor) -> bool:
    """Whether a Triton kernel can process them."""
    if rows.device.type not in triton_check.DEVICES or not rows.numel() or torch.is_grad_enabled():
        return False
    straight = rows.is_contiguous() and vector.is_contiguous()
    return straight and rows.ndim > 1 and vector.shape == rows.shape[-1:]


def _works(check: triton_check.Check, rows: Tensor) -> bool:
    """Whether there is a working kernel for the rows' dtype and device."""
    return triton_check.works(_SOURCE, check, rows.dtype, rows.device, _INSTEAD)


def _kernels() -> Any:
    return triton_check.kernels(_SOURCE)


def _add_bias(out: Tensor, bias: Tensor) -> None:
    width = bias.shape[0]
    rows = out.numel() // width
    with current(out.device):
        _kernels().add_to_rows[-(-rows // _ROWS), -(-width // _COLUMNS)](
            out, bias, rows, width, _ROWS, _COLUMNS
        )
    torch.autograd.graph.increment_version(out)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    width = weight.shape[0]
    out = torch.empty_like(x)
    columns = 1 << (width - 1).bit_length()
    with current(x.device):
        _kernels().normalize_rows[x.numel() // width,](
            x,
            weight,
            bias,
            out,
            width,
            eps,
            columns,
            num_warps=min(max(columns // _A_WARPS_ELEMENTS, 1), 16),
        )
    return out


def _check_bias(dtype: torch.dtype, device: torch.device) -> None:
    x, _, bias = _sample(dtype, device)
    found = x.clone()
    _add_bias(found, bias)
    if not torch.equal(found, x.add_(bias)):
        raise RuntimeError("its results differ from those of torch's add_")


def _check_norm(dtype: torch.dtype, device: torch.device) -> None:
    x, weight, bias = _sample(dtype, device)
    found = _layer_norm(x, weight, bias, 1e-5)
    expected = F.layer_norm(x.float(), weight.shape, weight, bias, 1e-5)
    step = torch.finfo(dtype).eps
    if not torch.allclose(found.float(), expected, rtol=step, atol=step):
        raise RuntimeError("its results differ from those of torch's layer_norm")


def _sample(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.linspace(-9, 9, 37 * 1000, device=device).sinh().view(37, 1000).to(dtype)
    weight, bias = torch.linspace(-2, 2, 2000, device=device).chunk(2)
    return x, weight, bias
