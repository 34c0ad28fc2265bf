"""Other tensors in the place of parameters, where models look for them.

While a probe is evaluated, modules hold stand-ins: tensors that torch asks about each operation
that takes one (``__torch_function__``), which then gets θ + displacement, or the fp32 numbers of
a half-precision vector. Other operations go their way, where a ``TorchFunctionMode`` would be asked
about every one of them.

What has a parameter in its hands otherwise than by its module's name for it (a list that was made
before, say) does not meet the stand-in. So probes are watched by a mode as well until operations
have met every stand-in, and for good where the mode saw such a use. One that comes only after that
is not seen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from zoopt.engines.interception.mode import asks_about
from zoopt.engines.interception.substitution import Substitution, Watching
from zoopt.interfaces import Slot
from zoopt.probes.cuda_graph import in_memory_of, in_passing
from zoopt.support.signals import deferred_signals

_PLAIN = (Tensor, torch.nn.Parameter)
_HELD = "something takes parameters otherwise than from the module that has them"
_UNMET = (
    "no operation has taken some of the tuned parameters yet. Leave out with params=... those that "
    "the objective does not use"
)


class StandIns:
    """Stand-ins for tensors, which modules hold while a probe is evaluated.

    Args:
        tensors: parameters. Those of a subclass, which knows better, have none.
        model: whose modules hold them, if that is known.
    """

    def __init__(self, tensors: Iterable[Tensor], model: torch.nn.Module | None) -> None:
        each = {id(tensor): tensor for tensor in tensors}
        self._number = len(each)
        stand_ins = {key: StandIn.of(t) for key, t in each.items() if type(t) in _PLAIN}
        modules = () if model is None else model.modules()
        self._places: list[tuple[dict[str, Any], str, Any, StandIn]] = [
            (module._parameters, name, parameter, stand_ins[id(parameter)])
            for module in modules
            for name, parameter in module._parameters.items()
            if id(parameter) in stand_ins
        ]
        self._watched = True
        """Whether operations are to be seen that take a parameter itself."""
        self._why = ""

    @contextmanager
    def there(self, watch: Watching) -> Iterator[None]:
        """Around the evaluation of a probe.

        Args:
            watch: says what operations get for a parameter.
        """
        try:
            for parameters, name, parameter, stand_in in self._places:
                if parameters.get(name) is parameter:
                    stand_in.source = watch
                    parameters[name] = stand_in
            if not self._watched:
                yield
                return
            with watch, in_passing(self._why):
                yield
            self._why = _HELD if watch.used else _UNMET
            met = {id(stand_in.plain) for *_, stand_in in self._places if stand_in.met}
            self._watched = watch.used or len(met) < self._number
        finally:
            with deferred_signals():
                for parameters, name, parameter, stand_in in self._places:
                    stand_in.source = None
                    if parameters.get(name) is stand_in:
                        parameters[name] = parameter


class Masters:
    """Hands operations the masters of half-precision vectors.

    Args:
        slots: θ.
        model: where θ is from, if that is known.
    """

    def __init__(self, slots: Sequence[Slot], model: torch.nn.Module | None) -> None:
        held = [(slot.tensor, slot.master) for slot in slots if slot.master is not None]
        self._masters = {id(tensor): master for tensor, master in held}
        self._stand_ins = StandIns([tensor for tensor, _ in held], model)

    def seen(self) -> AbstractContextManager[None]:
        """Around the evaluation of a probe."""
        return self._there() if self._masters else nullcontext()

    @contextmanager
    def _there(self) -> Iterator[None]:
        with in_memory_of(self), self._stand_ins.there(_Given(self._masters)):
            yield


class _Given(Watching):
    """Replaces parameters by what there is for each.

    Args:
        given: that, by the ``id`` of the parameter.
    """

    def __init__(self, given: Mapping[int, Tensor]) -> None:
        super().__init__(given)
        self._given = given

    def replaced(self, tensor: Tensor) -> Tensor:
        """A parameter's."""
        return self._given[id(tensor)]


class StandIn(Tensor):
    """A tensor for which operations take another.

    Attributes:
        plain: the same as any other tensor.
        exact: what was made of vectors alone, in fp32; None after something was written to it.
        source: says what operations get for a parameter, during a probe.
        met: whether an operation has taken it.
    """

    plain: Tensor
    exact: Tensor | None
    source: Watching | None
    met = False

    @staticmethod
    def of(plain: Tensor, exact: Tensor | None = None) -> StandIn:
        """One that shares the memory of ``plain``."""
        made = plain.detach().as_subclass(StandIn)
        made.plain, made.exact, made.source = plain, exact, None
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
        if asks_about(func, args, kwargs):
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
        """What it stands for."""
        if type(tensor) is not StandIn:
            return tensor
        tensor.met = True
        if tensor.source is not None:
            return tensor.source.replaced(tensor.plain)
        return tensor.plain if tensor.exact is None else tensor.exact

    def rows(self, matrix: Tensor, ids: Tensor) -> Tensor | None:
        """Rows of what it stands for."""
        if type(matrix) is not StandIn or matrix.source is None:
            return None
        matrix.met = True
        return matrix.source.looked_up(matrix.plain, ids)

    def remembered(self, out: Tensor, exact: Tensor) -> Tensor:
        """A stand-in."""
        return StandIn.of(out, exact)

    def exact_of(self, tensor: Tensor) -> Tensor | None:
        """What it was made as."""
        return tensor.exact if type(tensor) is StandIn else None

    def overwritten(self, tensor: Tensor) -> Tensor:
        """What was made is itself again from now on; of a parameter a rounded copy."""
        if type(tensor) is not StandIn:
            return tensor
        if tensor.source is not None:
            return self.given(tensor).to(tensor.plain.dtype)
        tensor.exact = None
        return tensor.plain

    def itself(self, tensor: Any) -> Any:
        """What it stands in for."""
        return tensor.plain if type(tensor) is StandIn else tensor


_BY_TYPE = _ByType()
