"""Stand-ins: tensors that replace parameters as attributes of their modules.

While a probe is evaluated, modules hold stand-ins. Torch calls a stand-in's ``__torch_function__``
for each operation that takes it, which then gets θ + displacement, or the fp32 values of a
half-precision vector. Other operations run without overhead, whereas a ``TorchFunctionMode``
intercepts every operation.

Code that accesses a parameter other than by its module's attribute (for example through a list
created before) bypasses the stand-in. So probes also run under a mode until operations have taken
every stand-in, and always if the mode saw such an access. An access that first occurs after that is
not seen.
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

PLAIN = (Tensor, torch.nn.Parameter)
"""The types of tensors that get stand-ins; others handle operations themselves."""

_HELD = "parameters are accessed other than as attributes of their modules"
_UNMET = (
    "no operation has taken some of the tuned parameters yet. Leave out those that the objective "
    "does not use with params=..."
)


class StandIns:
    """Stand-ins for tensors, which modules hold while a probe is evaluated.

    Args:
        tensors: parameters. Tensor subclasses, which handle operations themselves, get none.
        model: the model whose modules hold them, if it is known.
    """

    def __init__(self, tensors: Iterable[Tensor], model: torch.nn.Module | None) -> None:
        each = {id(tensor): tensor for tensor in tensors}
        self._number = len(each)
        stand_ins = {key: StandIn.of(t) for key, t in each.items() if type(t) in PLAIN}
        modules = () if model is None else model.modules()
        self._places: list[tuple[dict[str, Any], str, Any, StandIn]] = [
            (module._parameters, name, parameter, stand_ins[id(parameter)])
            for module in modules
            for name, parameter in module._parameters.items()
            if id(parameter) in stand_ins
        ]
        self._watched = True
        """Whether to intercept operations that take a parameter itself."""
        self._why = ""

    @contextmanager
    def there(self, watch: Watching) -> Iterator[None]:
        """A context for the evaluation of a probe.

        Args:
            watch: provides the tensors that replace parameters.
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
    """Passes operations the masters of half-precision vectors.

    Args:
        slots: θ.
        model: the model that θ belongs to, if it is known.
    """

    def __init__(self, slots: Sequence[Slot], model: torch.nn.Module | None) -> None:
        held = [(slot.tensor, slot.master) for slot in slots if slot.master is not None]
        self._masters = {id(tensor): master for tensor, master in held}
        self._stand_ins = StandIns([tensor for tensor, _ in held], model)

    def seen(self) -> AbstractContextManager[None]:
        """A context for the evaluation of a probe."""
        return self._there() if self._masters else nullcontext()

    @contextmanager
    def _there(self) -> Iterator[None]:
        with in_memory_of(self), self._stand_ins.there(_Given(self._masters)):
            yield


class _Given(Watching):
    """Replaces parameters by given tensors.

    Args:
        given: the tensors, by the ``id`` of the parameter.
    """

    def __init__(self, given: Mapping[int, Tensor]) -> None:
        super().__init__(given)
        self._given = given

    def replaced(self, tensor: Tensor) -> Tensor:
        """The tensor given for a parameter."""
        return self._given[id(tensor)]


class StandIn(Tensor):
    """A tensor that operations replace by another.

    Attributes:
        plain: an ordinary tensor that shares its memory.
        exact: for a result computed from vectors only, its fp32 value; None once it is overwritten.
        source: provides the replacement of a parameter, during a probe.
        met: whether an operation has taken it.
    """

    plain: Tensor
    exact: Tensor | None
    source: Watching | None
    met = False

    @staticmethod
    def of(plain: Tensor, exact: Tensor | None = None) -> StandIn:
        """A stand-in that shares the memory of ``plain``."""
        made = plain.detach().as_subclass(StandIn)
        made.plain, made.exact, made.source = plain, exact, None
        made._is_param = isinstance(plain, torch.nn.Parameter)  # isinstance checks this
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
        """Whether it is a stand-in."""
        return type(tensor) is StandIn

    def given(self, tensor: Tensor) -> Tensor:
        """The tensor that an operation gets for it."""
        if type(tensor) is not StandIn:
            return tensor
        tensor.met = True
        if tensor.source is not None:
            return tensor.source.replaced(tensor.plain)
        return tensor.plain if tensor.exact is None else tensor.exact

    def rows(self, matrix: Tensor, ids: Tensor) -> Tensor | None:
        """Rows of the tensor that an operation gets for a stand-in."""
        if type(matrix) is not StandIn or matrix.source is None:
            return None
        matrix.met = True
        return matrix.source.looked_up(matrix.plain, ids)

    def remembered(self, out: Tensor, exact: Tensor) -> Tensor:
        """A stand-in for a result computed from vectors only."""
        return StandIn.of(out, exact)

    def exact_of(self, tensor: Tensor) -> Tensor | None:
        """The fp32 value of a result computed from vectors only; None for other tensors."""
        return tensor.exact if type(tensor) is StandIn else None

    def is_parameter(self, tensor: Tensor) -> bool:
        """Whether it is a parameter's stand-in during a probe."""
        return type(tensor) is StandIn and tensor.source is not None

    def overwritten(self, tensor: Tensor) -> Tensor:
        """The plain tensor of a result, whose fp32 value is dropped."""
        if type(tensor) is not StandIn:
            return tensor
        tensor.exact = None
        return tensor.plain

    def itself(self, tensor: Any) -> Any:
        """The plain tensor of a stand-in; any other value unchanged."""
        return tensor.plain if type(tensor) is StandIn else tensor


_BY_TYPE = _ByType()
