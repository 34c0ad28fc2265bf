"""Seeing every operation that takes a parameter: what a ``TorchFunctionMode`` can and cannot see.

What it cannot see would be silently unperturbed, so it is refused: scripted and compiled modules
when an engine is made, and any parameter that no operation took during a probe when the probe ends.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from zoopt.interfaces import Slot

_VIEWS = frozenset({"data", "T", "mT", "H", "mH", "real"})
_ABOUT = frozenset(
    {
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "stride",
        "storage_offset",
        "is_contiguous",
        "is_floating_point",
        "is_complex",
        "element_size",
        "get_device",
        "result_type",
        "data_ptr",
        "untyped_storage",
        "has_names",
        "requires_grad_",
        "__len__",
        "__hash__",
        "__repr__",
        "__format__",
        "__reduce_ex__",
        "register_hook",
        *(
            f"{made}_like"
            for made in ("empty", "zeros", "ones", "full", "rand", "randn", "randint")
        ),
        *(f"new_{made}" for made in ("empty", "empty_strided", "zeros", "ones", "full")),
    }
)
_OTHERWISE = "engine='copy' (exact, twice the memory) or engine='inplace' sees through it"


class Interception(TorchFunctionMode):
    """A mode that sees every operation on values, and says what becomes of it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if asks_about(func, args, kwargs):
            return func(*args, **kwargs)
        return self.operation(func, args, kwargs)

    @abstractmethod
    def operation(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What is returned instead of ``func(*args, **kwargs)``."""


class UnseenParameterError(RuntimeError):
    """A parameter was not taken by any operation that the engine could see."""


def require_seen(by_id: Mapping[int, Slot], seen: Collection[int], engine: str) -> None:
    """Raises :class:`UnseenParameterError` if an operation took none of some parameter."""
    unseen = [slot.name for key, slot in by_id.items() if key not in seen]
    if unseen:
        raise UnseenParameterError(
            f"the objective used {', '.join(unseen[:5])}"
            f"{f' and {len(unseen) - 5} more' if len(unseen) > 5 else ''} in no operation that "
            f"engine={engine!r} can see, so perturbing them had no effect. Leave parameters that "
            "the objective does not depend on out with params=...; where it does (through a "
            f"compiled function, a cached view, another thread), {_OTHERWISE}."
        )


def refuse_view(name: str, engine: str) -> None:
    """Raises :class:`UnseenParameterError` for a view of a parameter made before the probe."""
    raise UnseenParameterError(
        f"the objective used a view of {name} that was made before (an attribute like "
        f"self.part = self.weight[:3]), which engine={engine!r} cannot perturb: take the view "
        f"where it is used; or {_OTHERWISE}."
    )


def transforming() -> bool:
    """Whether torch.func is transforming (vmap, grad), where some operations are not allowed."""
    return torch._C._functorch.maybe_current_level() is not None


def opaque_modules(model: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """(name, what it is) of modules whose operations cannot be seen."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            yield name or type(module).__name__, "a scripted or traced module"
        elif type(module).__name__ == "OptimizedModule" or (
            getattr(module, "_compiled_call_impl", None) is not None
        ):
            yield name or type(module).__name__, "a compiled module"


def refuse_opaque(model: torch.nn.Module, engine: str) -> None:
    """Raises TypeError if a module's operations cannot be seen."""
    for name, what in opaque_modules(model):
        raise TypeError(
            f"module {name!r} is {what}, whose operations engine={engine!r} cannot see: "
            f"{_OTHERWISE}"
        )


def asks_about(func: Callable[..., Any], args: Collection[Any], kwargs: Collection[Any]) -> bool:
    """Whether a function reads a tensor's shape, dtype and the like, not its values."""
    name = getattr(func, "__name__", "")
    if name == "type":  # which casts, too
        return len(args) + len(kwargs) == 1
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") not in _VIEWS
    return name in _ABOUT
