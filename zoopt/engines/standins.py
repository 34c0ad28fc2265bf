"""Masters in the place of half-precision vectors, where models look for their parameters.

While a probe is evaluated, modules hold stand-ins: tensors that know themselves in fp32, and that
torch asks about each operation that takes one (``__torch_function__``). Other operations go their
way, where a ``TorchFunctionMode`` would be asked about every one of them.

What has a parameter in its hands otherwise than by its module's name for it (a list that was made
before, say) does not meet the stand-in. So probes are watched by a mode as well until operations
have met every stand-in, and for good where the mode saw such a use. One that comes only after that
is not seen, and gets the rounded parameter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zoopt.engines.interception import asks_about
from zoopt.engines.substitution import Substitution, Watching
from zoopt.interfaces import Slot
from zoopt.signals import deferred_signals


class Masters:
    """Hands operations the masters of half-precision vectors.

    Args:
        slots: θ.
        model: where θ is from, if that is known.
    """

    def __init__(self, slots: Sequence[Slot], model: torch.nn.Module | None) -> None:
        held = [(slot.tensor, slot.master) for slot in slots if slot.master is not None]
        self._masters = {id(tensor): master for tensor, master in held}
        stand_ins = {id(tensor): StandIn.of(tensor, master) for tensor, master in held}
        modules = () if model is None else model.modules()
        self._places: list[tuple[dict[str, Any], str, Any, StandIn]] = [
            (module._parameters, name, parameter, stand_ins[id(parameter)])
            for module in modules
            for name, parameter in module._parameters.items()
            if id(parameter) in stand_ins
        ]
        self._watched = True
        """Whether operations are to be seen that take a parameter itself."""

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Around the evaluation of a probe."""
        if not self._masters:
            yield
            return
        try:
            for parameters, name, parameter, stand_in in self._places:
                if parameters.get(name) is parameter:
                    parameters[name] = stand_in
            if not self._watched:
                yield
                return
            with _Watch(self._masters) as watch:
                yield
            met = {id(stand_in.plain) for *_, stand_in in self._places if stand_in.met}
            self._watched = watch.used or len(met) < len(self._masters)
        finally:
            with deferred_signals():
                for parameters, name, parameter, stand_in in self._places:
                    if parameters.get(name) is stand_in:
                        parameters[name] = parameter


class _Watch(Watching):
    """Replaces parameters themselves.

    Args:
        masters: by the ``id`` of the parameter.
    """

    def __init__(self, masters: Mapping[int, Tensor]) -> None:
        super().__init__(masters)
        self._masters = masters
        self.used = False

    def replaced(self, tensor: Tensor) -> Tensor:
        """A parameter's master, or the tensor."""
        master = self._masters.get(id(tensor))
        if master is None:
            return tensor
        self.used = True
        return master


class StandIn(Tensor):
    """A half-precision tensor that operations take in fp32.

    Attributes:
        plain: the same as any other tensor.
        exact: in fp32; None after something has been written to it.
        met: whether an operation has taken it.
    """

    plain: Tensor
    exact: Tensor | None
    met = False

    @staticmethod
    def of(plain: Tensor, exact: Tensor) -> StandIn:
        """One that shares the memory of ``plain``."""
        made = plain.detach().as_subclass(StandIn)
        made.plain, made.exact = plain, exact
        made._is_param = isinstance(plain, torch.nn.Parameter)  # what isinstance looks at
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if asks_about(func):
            named = {name: _BY_TYPE.itself(value) for name, value in kwargs.items()}
            return func(*map(_BY_TYPE.itself, args), **named)
        return _BY_TYPE.substituted(func, args, kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain.__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.plain, memo)


class _ByType(Substitution):
    """Replaces stand-ins."""

    def watches(self, tensor: Tensor) -> bool:
        """Whether it is one."""
        return type(tensor) is StandIn

    def given(self, tensor: Tensor) -> Tensor:
        """What it is in fp32."""
        if type(tensor) is not StandIn:
            return tensor
        tensor.met = True
        return tensor.plain if tensor.exact is None else tensor.exact

    def remembered(self, out: Tensor, exact: Tensor) -> Tensor:
        """A stand-in."""
        return StandIn.of(out, exact)

    def written(self, tensor: Tensor) -> Tensor:
        """What was made is itself again from now on; of a parameter a rounded copy."""
        if type(tensor) is not StandIn:
            return tensor
        if isinstance(tensor.plain, torch.nn.Parameter):
            return self.given(tensor).to(tensor.plain.dtype)
        tensor.exact = None
        return tensor.plain

    def itself(self, tensor: Any) -> Any:
        """What it stands in for."""
        return tensor.plain if type(tensor) is StandIn else tensor


_BY_TYPE = _ByType()
