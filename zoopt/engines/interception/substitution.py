"""Which tensors an operation gets in place of its arguments, and what becomes of its result.

A half-precision vector is replaced by fp32 numbers (:mod:`zoopt.parameters.masters`). What takes
one is computed in fp32, and its result is rounded to the dtype that it would have had, so that no
module notices. What an operation makes of vectors alone, such as ``1 + weight`` or
``weight.view(1, -1)``, would lose the perturbation in that rounding: it is remembered in fp32, for
the operation in which an activation meets it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from zoopt.engines.interception.fast_paths import Replacement, done_directly
from zoopt.engines.interception.fp32 import in_usual_dtype, rounded, unrounded, usual_dtype, wider
from zoopt.engines.interception.mode import Interception

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


def _has(values: Any, watched: Collection[int]) -> bool:
    """Whether one of the watched tensors is among some arguments."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            if id(value) in watched:
                return True
        elif isinstance(value, tuple | list | dict) and _has(value, watched):
            return True
    return False


def _is_real(leaf: Any) -> bool:
    """Whether it is a tensor of real numbers, and so more than an index or a mask."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _as_vector(value: Any) -> Any:
    """A tensor of one number as one of a dimension: as a number it is rounded to what it meets."""
    return value.view(1) if isinstance(value, Tensor) and value.ndim == 0 else value


def _writes(func: Callable[..., Any]) -> bool:
    """Whether an operation writes to its first argument."""
    name = getattr(func, "__name__", "")
    in_place = name.startswith("__i") and name not in ("__invert__", "__int__", "__index__")
    trailing = name.endswith("_") and not name.endswith("__")
    return in_place or trailing or name == "__setitem__"
