"""The operations that models spend their parameters on, without the detours of the general case.

What :mod:`zoopt.engines.substitution` does for any operation, for any form of arguments, takes a
processor longer than many an operation takes a GPU. Here are the usual ones in their usual form.
Their results are the same, but for the last bit of a norm on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoopt.directions.rounding import HALF
from zoopt.engines.rows import add_bias, layer_norm

Given = Callable[[Tensor], Tensor]
"""What an operation gets in place of a tensor."""

Watches = Callable[[Tensor], bool]
"""Whether it gets another."""


def done_directly(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: Given,
    watches: Watches,
) -> Tensor | None:
    """The operation on what replaces its arguments; None where it is for the general case.

    Args:
        func: the operation.
        args: its arguments.
        kwargs: those by name.
        given: gives an argument's replacement, which is in fp32 for a half-precision vector.
        watches: says which arguments have one.
    """
    way = _WAYS.get(func)
    return None if way is None else way(args, kwargs, given, watches)


def _linear(
    args: tuple[Any, ...], kwargs: dict[str, Any], given: Given, watches: Watches
) -> Tensor | None:
    if kwargs or len(args) < 2:
        return None
    x, weight, *rest = args
    if watches(x) or x.dtype != weight.dtype or not _plain(x):
        return None
    weight = given(weight)
    if not rest or rest[0] is None:
        return F.linear(x, weight)
    bias = given(rest[0])
    if bias.dtype == weight.dtype:
        return F.linear(x, weight, bias)
    return add_bias(F.linear(x, weight), bias)


def _layer_norm(
    args: tuple[Any, ...], kwargs: dict[str, Any], given: Given, watches: Watches
) -> Tensor | None:
    if len(args) != 2 or watches(args[0]) or not _plain(args[0]):
        return None  # F.layer_norm passes on what it was called with as (x, shape, **kwargs)
    x, shape = args
    weight, bias = (kwargs.get(name) for name in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 1 or not watches(weight):
        return None
    weight, bias = given(weight), given(bias)
    if weight.dtype == x.dtype or len(shape) != 1:
        return None
    return layer_norm(x, weight, bias.to(weight.dtype), kwargs["eps"])


def _product(
    args: tuple[Any, ...], kwargs: dict[str, Any], given: Given, watches: Watches
) -> Tensor | None:
    if kwargs or len(args) != 2 or not all(isinstance(each, Tensor) for each in args):
        return None
    a, b = args
    if watches(a) == watches(b) or a.dtype != b.dtype or not _plain(a):
        return None
    x, factor = (b, given(a)) if watches(a) else (a, given(b))
    alike = factor.ndim <= 1 <= x.ndim and factor.numel() in (1, x.shape[-1])
    if alike and not torch.is_grad_enabled():
        return torch.mul(x, factor, out=torch.empty_like(x))
    product: Tensor = torch.mul(x, factor)
    return product.to(x.dtype)


_WAYS = {
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    torch.mul: _product,
    Tensor.mul: _product,
    Tensor.__mul__: _product,
}


def _plain(x: Tensor) -> bool:
    """Whether what an operation makes of x has its dtype."""
    return x.dtype in HALF and not torch.is_autocast_enabled(x.device.type)
