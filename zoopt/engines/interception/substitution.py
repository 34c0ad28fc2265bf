"""Replaces an operation's arguments by other tensors, and rounds its result.

A half-precision vector is replaced by an fp32 one (:mod:`zoopt.parameters.masters`). Operations
that take it are computed in fp32, and the result is rounded to its usual dtype, so that no module
notices. Results computed from vectors only, such as ``1 + weight`` or ``weight.view(1, -1)``, would
lose the perturbation in that rounding: they are kept in fp32 until they are combined with an
activation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from zoopt.engines.interception.fast_paths import Replacement, done_directly
from zoopt.engines.interception.fp32 import in_usual_dtype, rounded, unrounded, usual_dtype, wider
from zoopt.engines.interception.mode import Interception, refuse_write

_ARITHMETIC = frozenset(
    getattr(Tensor, form)
    for name in ("add", "sub", "mul", "div")
    for form in (f"{name}_", f"__i{'truediv' if name == 'div' else name}__")
)
"""In-place arithmetic on the first argument."""


class Substitution(Replacement):
    """Runs operations with some of their arguments replaced."""

    def itself(self, tensor: Tensor) -> Tensor:
        """The plain tensor of a watched one."""
        return tensor

    @abstractmethod
    def remembered(self, out: Tensor, exact: Tensor) -> Tensor:
        """A result computed from vectors only, which operations replace by its fp32 value."""

    @abstractmethod
    def exact_of(self, tensor: Tensor) -> Tensor | None:
        """The fp32 value of a result computed from vectors only; None for other tensors."""

    @abstractmethod
    def is_parameter(self, tensor: Tensor) -> bool:
        """Whether it is a replaced parameter, and not a result computed from some."""

    @abstractmethod
    def overwritten(self, tensor: Tensor) -> Tensor:
        """The tensor to pass to an operation that writes to a result."""

    def substituted(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The result of an operation that takes watched tensors, with its arguments replaced."""
        if func is Tensor.__iter__:
            return iter(self.substituted(Tensor.unbind, args, kwargs))
        if args and self._is_parameter(args[0]) and _writes(func):
            refuse_write()
        done = done_directly(func, args, kwargs, self)
        if done is not None:
            return done
        if kwargs.get("out") is not None:
            return self._put(func, args, kwargs)
        leaves, form = tree_flatten((args, kwargs))
        asked = leaves
        moved = [self.given(leaf) if isinstance(leaf, Tensor) else leaf for leaf in asked]
        leaves = [self.itself(leaf) if isinstance(leaf, Tensor) else leaf for leaf in asked]
        widened = wider(leaves, moved)
        if not any(widened):
            args, kwargs = tree_unflatten(moved, form)
            return func(*args, **kwargs)
        if _writes(func) and isinstance(asked[0], Tensor):
            return self._written(func, asked[0], moved, form)
        if not all(w for w, leaf in zip(widened, leaves, strict=True) if _is_real(leaf)):
            return in_usual_dtype(func, leaves, moved, form)
        exact = unrounded(func, leaves, moved, form)
        out = rounded(exact, usual_dtype(func, leaves, form))
        results, structure = tree_flatten(out)
        remembered = [
            self.remembered(mine, wide) if isinstance(mine, Tensor) and mine is not wide else mine
            for mine, wide in zip(results, tree_leaves(exact), strict=True)
        ]
        return tree_unflatten(remembered, structure)

    def _is_parameter(self, value: Any) -> bool:
        return isinstance(value, Tensor) and self.is_parameter(value)

    def _written(
        self, func: Callable[..., Any], target: Tensor, moved: list[Any], form: TreeSpec
    ) -> Any:
        """An operation that writes to its first argument and takes fp32 vectors.

        If the first argument was computed from vectors only, its fp32 value is written, and then
        rounded.
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
        """An operation with ``out=...`` tensors, to which its results are written."""
        kwargs = dict(kwargs)
        out = kwargs.pop("out")
        if any(map(self._is_parameter, tree_leaves(out))):
            refuse_write()
        into = [self.overwritten(tensor) for tensor in tree_leaves(out)]
        results = tree_leaves(self.substituted(func, args, kwargs))
        for there, result in zip(into, results, strict=True):
            there.resize_(result.shape).copy_(result)
        return out


class Watching(Substitution, Interception):
    """A mode that intercepts every operation, and replaces tensors by their ``id``.

    Args:
        watched: ``id`` of the tensors that are replaced.

    Attributes:
        used: whether an operation took one of them itself, and not its stand-in.
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
        """The replacement of a watched tensor."""

    def looked_up(self, matrix: Tensor, ids: Tensor) -> Tensor | None:
        """Rows of a watched matrix's replacement; None if that exists as a whole."""
        return None

    def operation(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation on its replaced arguments."""
        if _has(args, self._watched) or (kwargs and _has(kwargs, self._watched)):
            return self.substituted(func, args, kwargs)
        return func(*args, **kwargs)

    def watches(self, tensor: Tensor) -> bool:
        """Whether it is one of the watched tensors, or was computed from vectors only."""
        return id(tensor) in self._watched

    def given(self, tensor: Tensor) -> Tensor:
        """The tensor that an operation gets for it."""
        made = self._made.get(id(tensor))
        if made is not None:
            return made
        if id(tensor) not in self._replaced:
            return tensor
        self.used = True
        return self.replaced(tensor)

    def rows(self, matrix: Tensor, ids: Tensor) -> Tensor | None:
        """Rows of a matrix's replacement."""
        if id(matrix) not in self._replaced:
            return None
        self.used = True
        return self.looked_up(matrix, ids)

    def remembered(self, out: Tensor, exact: Tensor) -> Tensor:
        """The same tensor, which is now watched."""
        self._made[id(out)] = exact
        self._watched.add(id(out))
        self._kept.append(out)
        return out

    def exact_of(self, tensor: Tensor) -> Tensor | None:
        """The fp32 value of a result computed from vectors only; None for other tensors."""
        return self._made.get(id(tensor))

    def is_parameter(self, tensor: Tensor) -> bool:
        """Whether it is one of the tensors that the mode was created for."""
        return id(tensor) in self._replaced

    def overwritten(self, tensor: Tensor) -> Tensor:
        """A result itself, whose fp32 value is dropped."""
        self._made.pop(id(tensor), None)
        return tensor


def _has(values: Any, watched: Collection[int]) -> bool:
    """Whether arguments contain one of the watched tensors."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            if id(value) in watched:
                return True
        elif isinstance(value, tuple | list | dict) and _has(value, watched):
            return True
    return False


def _is_real(leaf: Any) -> bool:
    """Whether it is a floating-point tensor, and not an index or a mask."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _as_vector(value: Any) -> Any:
    """A 0-d tensor as a 1-d one, because torch rounds 0-d tensors to the other operand's dtype."""
    return value.view(1) if isinstance(value, Tensor) and value.ndim == 0 else value


def _writes(func: Callable[..., Any]) -> bool:
    """Whether an operation writes to its first argument."""
    name = getattr(func, "__name__", "")
    in_place = name.startswith("__i") and name not in ("__invert__", "__int__", "__index__")
    trailing = name.endswith("_") and not name.endswith("__")
    return in_place or trailing or name == "__setitem__"
