"""Fast paths for the most common operations that take parameters.

The general case in ``substitution.py``, for any operation and any form of arguments, often takes
the CPU longer than the operation takes a GPU. This module handles common operations in their usual
form. The results are the same, except for the last bit of a norm on a GPU, and for ``addmm``, whose
product is rounded before its bias is added, like that of a linear layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoopt.directions.kernel.rounding import HALF
from zoopt.engines.interception.bias_and_norm import add_bias, layer_norm
from zoopt.engines.interception.mode import transforming


class Replacement(ABC):
    """Defines the tensors that replace some of an operation's arguments."""

    @abstractmethod
    def watches(self, tensor: Tensor) -> bool:
        """Whether a tensor is replaced."""

    @abstractmethod
    def given(self, tensor: Tensor) -> Tensor:
        """The tensor's replacement, in fp32 for a half-precision vector; itself if it has none."""

    @abstractmethod
    def rows(self, matrix: Tensor, ids: Tensor) -> Tensor | None:
        """Rows of a matrix's replacement; None if the operation needs the whole matrix."""


def done_directly(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], by: Replacement
) -> Tensor | None:
    """The operation on its replaced arguments; None if only the general case handles it.

    Args:
        func: the operation.
        args: its positional arguments.
        kwargs: its keyword arguments.
        by: replaces them.
    """
    way = _WAYS.get(func)
    return None if way is None else way(args, kwargs, by)


def _linear(args: tuple[Any, ...], kwargs: dict[str, Any], by: Replacement) -> Tensor | None:
    if kwargs or len(args) < 2 or by.watches(args[0]):
        return None
    x, weight, bias = args if len(args) == 3 else (*args, None)
    return _affine(x, weight, bias, by, F.linear, F.linear)


def _addmm(args: tuple[Any, ...], kwargs: dict[str, Any], by: Replacement) -> Tensor | None:
    if kwargs or len(args) != 3 or args[0].ndim != 1 or by.watches(args[1]):
        return None
    bias, x, weight = args
    return _affine(x, weight, bias, by, torch.mm, lambda x, w, b: torch.addmm(b, x, w))


def _affine(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    by: Replacement,
    product: Callable[[Tensor, Tensor], Tensor],
    biased: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor | None:
    """The product of x with the weight's replacement, plus the bias's replacement."""
    bias = None if bias is None else by.given(bias)
    wider = bias is not None and bias.dtype != weight.dtype
    if wider and (x.dtype != weight.dtype or not _plain(x)):
        return None  # before a matrix is computed
    matrix = by.given(weight)
    if matrix.dtype != weight.dtype:
        return None  # it was derived from a vector
    if bias is None:
        return product(x, matrix)
    return add_bias(product(x, matrix), bias) if wider else biased(x, matrix, bias)


def _layer_norm(args: tuple[Any, ...], kwargs: dict[str, Any], by: Replacement) -> Tensor | None:
    if len(args) != 2 or by.watches(args[0]) or not _plain(args[0]):
        return None  # F.layer_norm passes its arguments on as (x, shape, **kwargs)
    x, shape = args
    weight, bias = (kwargs.get(name) for name in ("weight", "bias"))
    if len(shape) != 1 or weight is None or bias is None or not by.watches(weight):
        return None
    weight, bias = by.given(weight), by.given(bias)
    if weight.dtype == x.dtype:
        return None
    return layer_norm(x, weight, bias.to(weight.dtype), kwargs["eps"])


def _embedding(args: tuple[Any, ...], kwargs: dict[str, Any], by: Replacement) -> Tensor | None:
    if len(args) != 2 or kwargs.get("max_norm") is not None:
        return None
    ids, matrix = args
    if not isinstance(ids, Tensor) or not by.watches(matrix) or not matrix.is_contiguous():
        return None
    return by.rows(matrix, ids)


def _product(args: tuple[Any, ...], kwargs: dict[str, Any], by: Replacement) -> Tensor | None:
    if kwargs or len(args) != 2 or not all(isinstance(each, Tensor) for each in args):
        return None
    a, b = args
    if by.watches(a) == by.watches(b) or a.dtype != b.dtype or not _plain(a):
        return None
    x, factor = (b, by.given(a)) if by.watches(a) else (a, by.given(b))
    if factor.ndim == 0 < x.ndim:
        factor = factor.view(1)  # a number in fp32 would be rounded to x's dtype
    alike = factor.ndim <= 1 <= x.ndim and factor.numel() in (1, x.shape[-1])
    if alike and not transforming() and not torch.is_grad_enabled():
        return torch.mul(x, factor, out=torch.empty_like(x))
    product: Tensor = torch.mul(x, factor)
    return product.to(x.dtype)


_WAYS = {
    F.linear: _linear,
    torch.addmm: _addmm,
    F.layer_norm: _layer_norm,
    F.embedding: _embedding,
    torch.mul: _product,
    Tensor.mul: _product,
    Tensor.__mul__: _product,
}


def _plain(x: Tensor) -> bool:
    """Whether x is in half precision and an operation's result has x's dtype."""
    return x.dtype in HALF and not torch.is_autocast_enabled(x.device.type)
