"""Quantized models: which tensors hold packed numbers, and where their scales are.

The layout of a quantized layer differs between libraries. It is recognized by attributes, so that
none of the libraries is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

ALTERNATIVE = (
    "If it is quantized, tune LoRA adapters over it (peft), or its scales "
    "(zoopt.quantization_scales); otherwise leave it out with params=..."
)

_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""The dtypes of plain values. In those of 8 bits updates would be lost in rounding."""


def packing(tensor: Tensor) -> str:
    """The kind of a tensor whose memory is not its plain values; the empty string for others.

    >>> packing(torch.zeros(2)), packing(torch.zeros(2, dtype=torch.float8_e4m3fn))
    ('', 'torch.float8_e4m3fn')
    """
    if is_traceable_wrapper_subclass(tensor):  # torchao's tensors, DTensor
        return type(tensor).__name__
    if tensor.dtype not in _PLAIN or getattr(tensor, "quant_state", None) is not None:
        return str(tensor.dtype)
    return ""


def quantization_scales(model: torch.nn.Module) -> list[tuple[str, Tensor]]:
    """The scales of a quantized model, for :class:`zoopt.ZOOptimizer` to tune in place.

    A weight is scale times integer, with one scale per row or per group within a row. The integers
    are not changed. Supported are torchao's tensors, HQQ's layers, and bitsandbytes' layers in 8
    or 4 bits (not those whose scales are quantized too, ``bnb_4bit_use_double_quant``).

    Args:
        model: a module with quantized layers.

    Returns:
        (name, tensor) pairs. The tensors belong to the layers, and now have ``requires_grad=True``,
        which marks them as tuned.

    Raises:
        ValueError: the model has no such scales.

    Example:
        >>> import zoopt
        >>> class Int4Linear(torch.nn.Module):  # stores its scales as HQQ does
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.meta = {"scale": torch.full((3, 1), 0.01)}
        >>> [name for name, _ in zoopt.quantization_scales(Int4Linear())]
        ['scale']
    """
    found = [
        (f"{prefix}.{name}" if prefix else name, scale.requires_grad_())
        for prefix, module in model.named_modules()
        for name, scale in _scales(module)
        if isinstance(scale, Tensor) and scale.is_floating_point()
    ]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no quantized layer of torchao, HQQ or bitsandbytes "
            "(without double quantization), whose scales zoopt can find. Give other scales as "
            "(name, tensor) pairs with requires_grad=True."
        )
    return found


def _scales(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, parameter in module.named_parameters(recurse=False):
        if is_traceable_wrapper_subclass(parameter):
            yield f"{name}.scale", getattr(parameter, "scale", None)
        for of in (parameter, getattr(module, "state", None)):  # before and after a first forward
            yield f"{name}.scale", getattr(of, "SCB", None)
        yield f"{name}.scale", getattr(getattr(parameter, "quant_state", None), "absmax", None)
    meta = getattr(module, "meta", None)
    if isinstance(meta, dict):
        yield "scale", meta.get("scale")
