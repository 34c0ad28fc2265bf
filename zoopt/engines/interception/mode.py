"""Intercepts every operation that takes a parameter, with a ``TorchFunctionMode``.

Operations that it cannot see would silently be unperturbed, so these are refused: scripted and
compiled modules when an engine is created, and at the end of a probe any parameter that no
operation took.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
_OTHERWISE = "use engine='copy' (exact, twice the memory) or engine='inplace'"


class Interception(TorchFunctionMode):
    """A mode that intercepts every operation on tensor values."""

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
        """The result to return instead of ``func(*args, **kwargs)``."""


class UnseenParameterError(RuntimeError):
    """No operation that the engine can intercept took a tuned parameter."""


def require_seen(by_id: Mapping[int, Slot], seen: Collection[int], engine: str) -> None:
    """Raises :class:`UnseenParameterError` if no operation took some parameter."""
    unseen = [slot.name for key, slot in by_id.items() if key not in seen]
    if unseen:
        raise UnseenParameterError(
            f"the objective used {', '.join(unseen[:5])}"
            f"{f' and {len(unseen) - 5} more' if len(unseen) > 5 else ''} in no operation that "
            f"engine={engine!r} can see, so perturbing them had no effect. If the objective does "
            "not depend on them, leave them out with params=...; if it does (through a compiled "
            f"function, a cached view, another thread), {_OTHERWISE}."
        )


def refuse_view(name: str, engine: str) -> None:
    """Raises :class:`UnseenParameterError` for a view of a parameter made before the probe."""
    raise UnseenParameterError(
        f"the objective used a view of {name} that was created before the probe (an attribute like "
        f"self.part = self.weight[:3], weight.detach(), a state_dict), which engine={engine!r} "
        f"cannot perturb: create the view where it is used; or {_OTHERWISE}."
    )


def refuse_write() -> None:
    """Raises RuntimeError for a write to a parameter, of which operations take perturbed copies."""
    raise RuntimeError(
        "the objective wrote to a tuned parameter, of which each operation takes a perturbed copy "
        "while a probe is evaluated, so the write would be lost: compute a new tensor, as in "
        "weight.clamp(-1, 1) instead of weight.clamp_(-1, 1); or use engine='copy' in fp32"
    )


def transforming() -> bool:
    """Whether a transform of torch.func is active (vmap, grad), which forbids some operations."""
    return torch._C._functorch.maybe_current_level() is not None


def opaque_modules(model: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """(name, kind) of modules whose operations cannot be intercepted."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            yield name or type(module).__name__, "a scripted or traced module"
        elif type(module).__name__ == "OptimizedModule" or (
            getattr(module, "_compiled_call_impl", None) is not None
        ):
            yield name or type(module).__name__, "a compiled module"


def refuse_aliases(model: torch.nn.Module, slots: Iterable[Slot], engine: str) -> None:
    """Raises ValueError if a module holds another tensor with the memory of one of θ."""
    tuned = {slot.tensor.data_ptr(): slot for slot in slots if slot.tensor.numel()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        slot = tuned.get(address(tensor))
        if slot is not None and tensor is not slot.tensor:
            raise ValueError(
                f"{name!r} is another tensor that shares memory with the tuned {slot.name!r}, "
                f"which engine={engine!r} would perturb without it: tie them as one Parameter, or "
                f"{_OTHERWISE}"
            )


def address(tensor: torch.Tensor) -> int:
    """Where a tensor's memory begins; 0 for those that have none."""
    try:
        return tensor.data_ptr()
    except RuntimeError:  # of torch.func, or fake
        return 0


def refuse_opaque(model: torch.nn.Module, engine: str) -> None:
    """Raises TypeError if a module's operations cannot be intercepted."""
    for name, what in opaque_modules(model):
        raise TypeError(
            f"module {name!r} is {what}, whose operations engine={engine!r} cannot see: "
            f"{_OTHERWISE}"
        )


def asks_about(func: Callable[..., Any], args: Collection[Any], kwargs: Collection[Any]) -> bool:
    """Whether a function reads a tensor's shape, dtype or other properties, not its values."""
    name = getattr(func, "__name__", "")
    if name == "type":  # with an argument it casts
        return len(args) + len(kwargs) == 1
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") not in _VIEWS
    return name in _ABOUT
