"""The operations that models spend their parameters on, without the detours of the general case.

What :mod:`zoopt.engines.substitution` does for any operation, for any form of arguments, takes a
processor longer than many an operation takes a GPU. Here are the usual ones in their usual form.
Their results are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoopt.engines.columns import add_bias
from zoopt.masters import is_half

Given = Callable[[Tensor], Tensor]
"""What an operation gets in place of a tensor."""

_PRODUCTS = frozenset({torch.mul, Tensor.mul, Tensor.__mul__})


def done_directly(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: Given,
    watched: Collection[int],
) -> Tensor | None:
    """The operation on what replaces its arguments; None where it is for the general case.

    Args:
        func: the operation.
        args: its arguments.
        kwargs: those by name.
        given: gives an argument's replacement, which is in fp32 for a half-precision vector.
        watched: ``id`` of the tensors that have one.
    """
    if func is F.layer_norm:  # which passes on what it was called with as (x, shape, **kwargs)
        if len(args) == 2 and id(args[0]) not in watched and _plain(args[0]):
            return _layer_norm(*args, **kwargs, given=given)
    elif kwargs:
        return None
    elif func is F.linear and len(args) in (2, 3):
        x, weight = args[:2]
        if id(x) not in watched and x.dtype == weight.dtype and _plain(x):
            return _linear(*args, given=given)
    elif func in _PRODUCTS and len(args) == 2 and all(isinstance(x, Tensor) for x in args):
        a, b = args
        if (id(a) in watched) != (id(b) in watched) and a.dtype == b.dtype and _plain(a):
            product: Tensor = torch.mul(given(a), given(b))
            return product.to(a.dtype)
    return None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, given: Given) -> Tensor:
    weight = given(weight)
    if bias is not None:
        bias = given(bias)
        if bias.dtype != weight.dtype:
            return add_bias(F.linear(x, weight), bias)
    return F.linear(x, weight, bias)


def _layer_norm(
    x: Tensor,
    shape: Any,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    given: Given,
) -> Tensor:
    moved = [None if each is None else given(each) for each in (weight, bias)]
    wide = x.float() if any(each is not None and each.dtype != x.dtype for each in moved) else x
    weight, bias = (None if each is None else each.to(wide.dtype) for each in moved)
    return F.layer_norm(wide, shape, weight, bias, eps).to(x.dtype)


def _plain(x: Tensor) -> bool:
    """Whether what an operation makes of x has its dtype."""
    return is_half([x]) and not torch.is_autocast_enabled(x.device.type)
