"""Operations on other tensors than they were called with, and in fp32 where vectors are.

A half-precision vector is replaced by fp32 numbers (:mod:`zoopt.parameters.masters`). What takes
one is computed in fp32, and its result is rounded to the dtype that it would have had, so that no
module notices. What an operation makes of vectors alone, such as ``1 + weight`` or
``weight.view(1, -1)``, would lose the perturbation in that rounding: it is remembered in fp32, for
the operation in which an activation meets it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from zoopt.engines.interception.bias_and_norm import add_bias
from zoopt.engines.interception.fast_paths import Replacement, done_directly
from zoopt.engines.interception.mode import Interception
from zoopt.parameters.masters import is_half

_WITH_BIAS = frozenset(
    {
        F.linear,
        *(getattr(F, f"conv{n}d") for n in (1, 2, 3)),
        *(getattr(torch, f"conv{n}d") for n in (1, 2, 3)),
    }
)
"""Called as (input, weight, bias, …), the bias being added to what the others give."""
_ARITHMETIC = frozenset(
    getattr(Tensor, form)
    for name in ("add", "sub", "mul", "div")
    for form in (f"{name}_", f"__i{'truediv' if name == 'div' else name}__")
)
"""On its first argument, in place."""


class Substitution(Replacement):
    """What becomes of an operation some of whose arguments are replaced by others."""

    def itself(self, tensor: Tensor) -> Tensor:
        """The tensor that a watched one is."""
        return tensor

    @abstractmethod
    def remembered(self, out: Tensor, exact: Tensor) -> Tensor:
        """What was made of vectors alone, to be replaced by what it is in fp32 from now on."""

    @abstractmethod
    def exact_of(self, tensor: Tensor) -> Tensor | None:
        """What it is in fp32, of a tensor that was made of vectors alone; None of any other."""

    @abstractmethod
    def overwritten(self, tensor: Tensor) -> Tensor:
        """What an operation whose result is put into a tensor gets for it, in its dtype."""

    def substituted(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """An operation that takes a watched tensor, on what replaces its arguments."""
        if func is Tensor.__iter__:
            return iter(self.substituted(Tensor.unbind, args, kwargs))
        done = done_directly(func, args, kwargs, self)
        if done is not None:
            return done
        if kwargs.get("out") is not None:
            return self._put(func, args, kwargs)
        leaves, form = tree_flatten((args, kwargs))
        asked = leaves
        moved = [self.given(leaf) if isinstance(leaf, Tensor) else leaf for leaf in asked]
        leaves = [self.itself(leaf) if isinstance(leaf, Tensor) else leaf for leaf in asked]
        wider = _wider(leaves, moved)
        if not any(wider):
            args, kwargs = tree_unflatten(moved, form)
            return func(*args, **kwargs)
        if _writes(func) and isinstance(asked[0], Tensor):
            return self._written(func, asked[0], moved, form)
        if not all(w for w, leaf in zip(wider, leaves, strict=True) if _is_real(leaf)):
            return substituted(func, leaves, moved, form)
        exact = unrounded(func, leaves, moved, form)
        out = _rounded(exact, _usual_dtype(func, leaves, form))
        results, structure = tree_flatten(out)
        remembered = [
            self.remembered(mine, wide) if isinstance(mine, Tensor) and mine is not wide else mine
            for mine, wide in zip(results, tree_leaves(exact), strict=True)
        ]
        return tree_unflatten(remembered, structure)

    def _written(
        self, func: Callable[..., Any], target: Tensor, moved: list[Any], form: TreeSpec
    ) -> Any:
        """An operation that writes to its first argument, and takes vectors in fp32.

        What was made of vectors alone is written in fp32, and rounded.
        """
        exact = self.exact_of(target)
        moved[0] = self.overwritten(target) if exact is None else exact
        if func in _ARITHMETIC and target.ndim > 0:
            moved = [moved[0], *(_as_vector(value) for value in moved[1:])]
        args, kwargs = tree_unflatten(moved, form)
        result = func(*args, **kwargs)
        if exact is None:
            return result
        self.itself(target).copy_(exact)
        return target

    def _put(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation whose results are put into tensors that it is given for them."""
        kwargs = dict(kwargs)
        out = kwargs.pop("out")
        into = [self.overwritten(tensor) for tensor in tree_leaves(out)]
        results = tree_leaves(self.substituted(func, args, kwargs))
        for there, result in zip(into, results, strict=True):
            there.resize_(result.shape).copy_(result)
        return out


class Watching(Substitution, Interception):
    """A mode that sees every operation, and replaces tensors that it knows by their ``id``.

    Args:
        watched: ``id`` of the tensors that are replaced.

    Attributes:
        used: whether an operation took one of them itself, and not what stands in for it.
    """

    def __init__(self, watched: Iterable[int]) -> None:
        super().__init__()
        self._replaced = frozenset(watched)
        self._watched = set(self._replaced)
        self._made: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []
        self.used = False

    @abstractmethod
    def replaced(self, tensor: Tensor) -> Tensor:
        """What stands in for a watched tensor."""

    def looked_up(self, matrix: Tensor, ids: Tensor) -> Tensor | None:
        """Rows of what stands in for a watched matrix; None where that is there as a whole."""
        return None

    def operation(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation on what replaces its arguments."""
        if _has(args, self._watched) or (kwargs and _has(kwargs, self._watched)):
            return self.substituted(func, args, kwargs)
        return func(*args, **kwargs)

    def watches(self, tensor: Tensor) -> bool:
        """Whether it is one of them, or was made of them alone."""
        return id(tensor) in self._watched

    def given(self, tensor: Tensor) -> Tensor:
        """What stands in for it."""
        made = self._made.get(id(tensor))
        if made is not None:
            return made
        if id(tensor) not in self._replaced:
            return tensor
        self.used = True
        return self.replaced(tensor)

    def rows(self, matrix: Tensor, ids: Tensor) -> Tensor | None:
        """Rows of what stands in for a matrix."""
        if id(matrix) not in self._replaced:
            return None
        self.used = True
        return self.looked_up(matrix, ids)

    def remembered(self, out: Tensor, exact: Tensor) -> Tensor:
        """The same tensor, which is watched from now on."""
        self._made[id(out)] = exact
        self._watched.add(id(out))
        self._kept.append(out)
        return out

    def exact_of(self, tensor: Tensor) -> Tensor | None:
        """What it was made as."""
        return self._made.get(id(tensor))

    def overwritten(self, tensor: Tensor) -> Tensor:
        """What was made is itself again from now on; of a parameter a rounded copy."""
        self._made.pop(id(tensor), None)
        return self.given(tensor).to(tensor.dtype)


def substituted(
    func: Callable[..., Any], leaves: Sequence[Any], moved: Sequence[Any], form: TreeSpec
) -> Any:
    """An operation on what replaces its arguments, with the dtype that it would have had.

    Args:
        func: the operation.
        leaves: the leaves of its (args, kwargs).
        moved: what replaces them, in fp32 for half-precision vectors.
        form: how leaves make (args, kwargs).
    """
    if not any(_wider(leaves, moved)):
        return unrounded(func, leaves, moved, form)
    dtype, biased = _usual_dtype(func, leaves, form), _biased(func, moved, form)
    if biased is None:
        return _rounded(unrounded(func, leaves, moved, form), dtype)
    out, spread = biased
    if out.dtype == dtype:
        return add_bias(out, spread)
    return _rounded(out.to(spread.dtype) + spread, dtype)


def unrounded(
    func: Callable[..., Any], leaves: Sequence[Any], moved: Sequence[Any], form: TreeSpec
) -> Any:
    """As :func:`substituted`, in fp32 where an argument is."""
    args, kwargs = tree_unflatten(list(moved), form)
    if not any(_wider(leaves, moved)):
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


def _rounded(out: Any, dtype: torch.dtype | None) -> Any:
    """What an operation returned, fp32 tensors in another dtype."""
    if dtype is None:
        return out
    return tree_map_only(Tensor, lambda t: t.to(dtype) if t.dtype == torch.float32 else t, out)


def _usual_dtype(
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


def _has(values: Any, watched: Collection[int]) -> bool:
    """Whether one of the watched tensors is among some arguments."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            if id(value) in watched:
                return True
        elif isinstance(value, tuple | list | dict) and _has(value, watched):
            return True
    return False


def _wider(leaves: Sequence[Any], moved: Sequence[Any]) -> list[bool]:
    """Which arguments are replaced by ones of another dtype."""
    pairs = zip(leaves, moved, strict=True)
    return [isinstance(leaf, Tensor) and leaf.dtype != other.dtype for leaf, other in pairs]


def _is_real(leaf: Any) -> bool:
    """Whether it is a tensor of real numbers, and so more than an index or a mask."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _kind(leaf: Any) -> Any:
    """What of an argument the dtype of a result may depend on."""
    if isinstance(leaf, Tensor):
        return leaf.dtype, leaf.ndim > 0
    return leaf if isinstance(leaf, torch.dtype | bool | str) else type(leaf)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if is_half([tensor]) else tensor


def _as_vector(value: Any) -> Any:
    """A tensor of one number as one of a dimension: as a number it is rounded to what it meets."""
    return value.view(1) if isinstance(value, Tensor) and value.ndim == 0 else value


def _writes(func: Callable[..., Any]) -> bool:
    """Whether an operation writes to its first argument."""
    name = getattr(func, "__name__", "")
    in_place = name.startswith("__i") and name not in ("__invert__", "__int__", "__index__")
    trailing = name.endswith("_") and not name.endswith("__")
    return in_place or trailing or name == "__setitem__"
