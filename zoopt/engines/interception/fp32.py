"""Operations computed in fp32, with results in the dtype that they would otherwise have.

Half-precision vectors are replaced by fp32 ones. The usual dtype of a result is found by running
the operation once on its original arguments, for each kind of arguments: rules would have to
reproduce promotion, casts and autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_leaves, tree_map_only, tree_unflatten

from zoopt.engines.interception.bias_and_norm import add_bias
from zoopt.parameters.masters import is_half

_WITH_BIAS = frozenset(
    {
        F.linear,
        *(getattr(F, f"conv{n}d") for n in (1, 2, 3)),
        *(getattr(torch, f"conv{n}d") for n in (1, 2, 3)),
    }
)
"""Operations called as (input, weight, bias, …) that add the bias to the result."""


def in_usual_dtype(
    func: Callable[..., Any], leaves: Sequence[Any], moved: Sequence[Any], form: TreeSpec
) -> Any:
    """An operation's result for its replaced arguments, in the dtype of the original result.

    Args:
        func: the operation.
        leaves: the leaves of its (args, kwargs).
        moved: their replacements, in fp32 for half-precision vectors.
        form: the tree structure of (args, kwargs).
    """
    if not any(wider(leaves, moved)):
        return unrounded(func, leaves, moved, form)
    dtype, biased = usual_dtype(func, leaves, form), _biased(func, moved, form)
    if biased is None:
        return rounded(unrounded(func, leaves, moved, form), dtype)
    out, spread = biased
    if out.dtype == dtype:
        return add_bias(out, spread)
    return rounded(out.to(spread.dtype) + spread, dtype)


def unrounded(
    func: Callable[..., Any], leaves: Sequence[Any], moved: Sequence[Any], form: TreeSpec
) -> Any:
    """As :func:`in_usual_dtype`, but the result is not rounded from fp32."""
    args, kwargs = tree_unflatten(list(moved), form)
    if not any(wider(leaves, moved)):
        return func(*args, **kwargs)
    biased = _biased(func, moved, form)
    if biased is not None:
        out, spread = biased
        return out.to(spread.dtype) + spread
    args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs))
    result = func(*args, **kwargs)
    # A cast may return its argument; writing to the result must not change the argument.
    taken = isinstance(result, Tensor) and any(result is other for other in moved)
    return result.clone() if taken else result


def _biased(
    func: Callable[..., Any], moved: Sequence[Any], form: TreeSpec
) -> tuple[Tensor, Tensor] | None:
    """An operation's result without its fp32 bias, and the bias in a shape to be added to it.

    This avoids a copy of the weights in fp32. None if there is no such bias.
    """
    if func not in _WITH_BIAS:
        return None
    args, kwargs = tree_unflatten(list(moved), form)
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    x, weight, bias = (given.pop(name, None) for name in ("input", "weight", "bias"))
    if bias is None or bias.dtype == x.dtype or weight.dtype != x.dtype:
        return None
    out = func(x, weight, None, *args[3:], **given)
    return out, bias.view(-1, *(1,) * (weight.ndim - 2))


def rounded(out: Any, dtype: torch.dtype | None) -> Any:
    """A result with its fp32 tensors cast to a dtype; unchanged for None."""
    if dtype is None:
        return out
    return tree_map_only(Tensor, lambda t: t.to(dtype) if t.dtype == torch.float32 else t, out)


def usual_dtype(
    func: Callable[..., Any], leaves: Sequence[Any], form: TreeSpec
) -> torch.dtype | None:
    """The floating-point dtype of an operation's result, found by running it once; cached."""
    kind = (func, torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"))
    key = (*kind, *(_kind(leaf) for leaf in leaves))
    if key not in _usual:
        cards = {t.device for t in leaves if isinstance(t, Tensor) and t.device.type == "cuda"}
        with torch.random.fork_rng(list(cards)):
            args, kwargs = tree_unflatten([_copied(leaf) for leaf in leaves], form)
            out = func(*args, **kwargs)
        tensors = (t for t in tree_leaves(out) if isinstance(t, Tensor))
        _usual[key] = next((t.dtype for t in tensors if t.dtype.is_floating_point), None)
    return _usual[key]


_usual: dict[Any, torch.dtype | None] = {}


def wider(leaves: Sequence[Any], moved: Sequence[Any]) -> list[bool]:
    """Which arguments are replaced by tensors of another dtype."""
    pairs = zip(leaves, moved, strict=True)
    return [isinstance(leaf, Tensor) and leaf.dtype != other.dtype for leaf, other in pairs]


def _kind(leaf: Any) -> Any:
    """The properties of an argument on which the result's dtype may depend."""
    if isinstance(leaf, Tensor):
        return leaf.dtype, leaf.ndim > 0
    return leaf if isinstance(leaf, torch.dtype | bool | str) else type(leaf)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if is_half([tensor]) else tensor
