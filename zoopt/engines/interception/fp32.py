"""An operation computed in fp32, with the dtype that it would otherwise have had.

What an operation gets in place of half-precision vectors is in fp32. That dtype is found by doing
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
"""Called as (input, weight, bias, …), the bias being added to what the others give."""


def in_usual_dtype(
    func: Callable[..., Any], leaves: Sequence[Any], moved: Sequence[Any], form: TreeSpec
) -> Any:
    """An operation on what replaces its arguments, with the dtype that it would have had.

    Args:
        func: the operation.
        leaves: the leaves of its (args, kwargs).
        moved: what replaces them, in fp32 for half-precision vectors.
        form: how leaves make (args, kwargs).
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
    """As :func:`in_usual_dtype`, in fp32 where an argument is."""
    args, kwargs = tree_unflatten(list(moved), form)
    if not any(wider(leaves, moved)):
        return func(*args, **kwargs)
    biased = _biased(func, moved, form)
    if biased is not None:
        out, spread = biased
        return out.to(spread.dtype) + spread
    args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs))
    result = func(*args, **kwargs)
    # A cast may give what it got; what is done to its result is not done to the original.
    taken = isinstance(result, Tensor) and any(result is other for other in moved)
    return result.clone() if taken else result


def _biased(
    func: Callable[..., Any], moved: Sequence[Any], form: TreeSpec
) -> tuple[Tensor, Tensor] | None:
    """What an operation gives without its fp32 bias, and the bias in a shape to be added to it.

    This spares a copy of the weights in fp32. None where there is no such bias.
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
    """What an operation returned, fp32 tensors in another dtype."""
    if dtype is None:
        return out
    return tree_map_only(Tensor, lambda t: t.to(dtype) if t.dtype == torch.float32 else t, out)


def usual_dtype(
    func: Callable[..., Any], leaves: Sequence[Any], form: TreeSpec
) -> torch.dtype | None:
    """The floating dtype of what an operation returns, found by doing it once on such arguments."""
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
    """Which arguments are replaced by ones of another dtype."""
    pairs = zip(leaves, moved, strict=True)
    return [isinstance(leaf, Tensor) and leaf.dtype != other.dtype for leaf, other in pairs]


def _kind(leaf: Any) -> Any:
    """What of an argument the dtype of a result may depend on."""
    if isinstance(leaf, Tensor):
        return leaf.dtype, leaf.ndim > 0
    return leaf if isinstance(leaf, torch.dtype | bool | str) else type(leaf)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if is_half([tensor]) else tensor
