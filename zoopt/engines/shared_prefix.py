"""Computes the part of a forward pass that all probes of a step share only once.

If only late layers, norms or a head are tuned, everything before the first operation on a tuned
parameter is the same for every probe of a step. The first probe records the inputs and outputs of
modules without tuned parameters up to that operation; the others reuse the outputs as long as their
inputs are equal by value. The results are identical, not approximate.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves

from zoopt.engines.interception.mode import Interception, opaque_modules
from zoopt.engines.interception.standins import StandIn
from zoopt.interfaces import Slot
from zoopt.parameters.versions import counted, versions
from zoopt.probes.cuda_graph import in_passing

Forward = Callable[..., Any]

_SHARED = "the shared prefix of a step's probes is computed once. Use share_prefix=False"
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


@dataclass(frozen=True)
class _Call:
    """A recorded call of a module before any operation took a tuned parameter."""

    module: torch.nn.Module
    given: Any
    attributes: _Attributes
    returned: Any
    versions: tuple[int, ...]

    def is_repeated_by(self, module: torch.nn.Module, given: Any) -> bool:
        """Whether another call would return the same; not if recorded tensors were written to."""
        return (
            module is self.module
            and _versions((self.given, self.returned)) == self.versions
            and _Attributes.of(module).marks == self.attributes.marks
            and _same(given, self.given)
        )


@dataclass(frozen=True)
class _Attributes:
    """Tensors of a module other than its parameters, on which its result may depend."""

    marks: tuple[int, ...]
    """Their ``id`` and versions."""
    tensors: tuple[Tensor, ...]
    """The tensors, referenced so that no other tensor gets the same ``id``."""

    @classmethod
    def of(cls, module: torch.nn.Module) -> _Attributes:
        """The tensors of a module and of its submodules."""
        tensors = tuple(
            value
            for each in module.modules()
            for value in (*vars(each).values(), *each._buffers.values())
            if isinstance(value, Tensor)
        )
        return cls((*map(id, tensors), *versions(counted(tensors))), tensors)


class SharedPrefix:
    """Records the module calls of a step's first probe, for the step's other probes.

    A module's call is reused if the module has parameters, none of which is tuned, and no hooks;
    and if the call takes and returns only tensors and plain values (a key-value cache, which it
    would write to, is neither), writes to no input and draws no random numbers. Tensors among the
    module's attributes must be the same as at the first call.

    Args:
        model: the model whose forwards to shorten; None to do nothing.
        slots: θ.
    """

    def __init__(self, model: torch.nn.Module | None, slots: Sequence[Slot]) -> None:
        self._tuned = {id(slot.tensor) for slot in slots}
        self._model = model
        self._modules: list[torch.nn.Module] = []
        if model is not None and not any(opaque_modules(model)):
            self._modules = list(self._untuned(model))
        self._calls: list[_Call] = []
        self._first = False
        self._position = 0
        self._watch: _Watch | None = None

    @property
    def calls(self) -> int:
        """Number of module calls that this step's first probe recorded for the others."""
        return len(self._calls)

    @contextmanager
    def step(self) -> Iterator[None]:
        """A context for all probes of a step."""
        if self._model is None or not self._modules:
            yield
            return
        self._calls, self._first = [], True
        try:
            with in_passing(_SHARED), ExitStack() as replaced:
                replaced.enter_context(_replaced_forward(self._model, self._beginning))
                for module in self._modules:
                    replaced.enter_context(_replaced_forward(module, self._remembering))
                yield
            if not self._calls:
                self._modules = []  # tuned parameters come first: there is nothing to share
        finally:
            self._calls = []

    @contextmanager
    def probe(self) -> Iterator[None]:
        """A context for one evaluation of the objective within a step."""
        self._position = 0
        if not (self._first and self._modules):
            yield
            return
        self._first = False
        try:
            with _Watch(self._tuned) as self._watch:
                yield
        finally:
            self._watch = None

    def _untuned(self, module: torch.nn.Module) -> Iterator[torch.nn.Module]:
        """The largest modules without tuned parameters."""
        mine = {id(parameter) for parameter in module.parameters()}
        called = type(module).forward is not torch.nn.Module.forward
        if mine and called and not mine & self._tuned and not any(map(_hooked, module.modules())):
            yield module
        else:
            for child in module.children():
                yield from self._untuned(child)

    def _beginning(self, module: torch.nn.Module, forward: Forward) -> Forward:
        """A forward of the whole model that first resets the record of tuned parameters taken."""

        @functools.wraps(forward)  # transformers inspects the signature
        def begun(*args: Any, **kwargs: Any) -> Any:
            if self._watch is not None:
                self._watch.tuned_taken = False
            return forward(*args, **kwargs)

        return begun

    def _remembering(self, module: torch.nn.Module, forward: Forward) -> Forward:
        @functools.wraps(forward)
        def remembered(*args: Any, **kwargs: Any) -> Any:
            if self._watch is not None:
                return self._note(module, forward, args, kwargs)
            if self._position < len(self._calls):
                call = self._calls[self._position]
                if call.is_repeated_by(module, (args, kwargs)):
                    self._position += 1
                    return call.returned
            return forward(*args, **kwargs)

        return remembered

    def _note(
        self,
        module: torch.nn.Module,
        forward: Forward,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        assert self._watch is not None
        given = (args, kwargs)
        before = None if self._watch.tuned_taken or not _plain(given) else _state(given)
        attributes = _Attributes.of(module)
        returned = forward(*args, **kwargs)
        undisturbed = before is not None and not self._watch.tuned_taken and _plain(returned)
        if undisturbed and _state(given) == before:
            noted = _versions((given, returned))
            self._calls.append(_Call(module, given, attributes, returned, noted))
        return returned


class _Watch(Interception):
    """Notices the first operation that takes a tuned parameter, or a view of one."""

    def __init__(self, tuned: set[int]) -> None:
        super().__init__()
        self._tuned = tuned
        self.tuned_taken = False

    def operation(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation unchanged."""
        if not self.tuned_taken:
            leaves = tree_leaves((args, kwargs))
            self.tuned_taken = any(isinstance(t, Tensor) and self._is_tuned(t) for t in leaves)
        return func(*args, **kwargs)

    def _is_tuned(self, tensor: Tensor) -> bool:
        stands_in = isinstance(tensor, StandIn)
        return stands_in or id(tensor) in self._tuned or id(tensor._base) in self._tuned


@contextmanager
def _replaced_forward(
    module: torch.nn.Module, replacement: Callable[[torch.nn.Module, Forward], Forward]
) -> Iterator[None]:
    own = vars(module).get("forward")
    module.forward = replacement(module, module.forward)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _hooked(module: torch.nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _plain(values: Any) -> bool:
    """Whether values are tensors and plain values, without objects that could keep state."""
    return all(
        (isinstance(leaf, Tensor) and not leaf.is_inference()) or isinstance(leaf, _PLAIN)
        for leaf in tree_leaves(values)
    )


def _versions(values: Any) -> tuple[int, ...]:
    """The version counter of each tensor."""
    return versions(counted(leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)))


def _state(given: Any) -> tuple[Any, ...]:
    """State that changes if a call writes to its inputs or draws random numbers."""
    devices = {leaf.device for leaf in tree_leaves(given) if isinstance(leaf, Tensor)}
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(device) for device in devices if device.type == "cuda"]
    numpys: Any = np.random.get_state()  # noqa: NPY002, a module may draw from the global state
    drawn = bytes(numpys[1]), numpys[2:], *(bytes(state.numpy()) for state in states)
    return _versions(given), random.getstate(), drawn


def _same(given: Any, noted: Any) -> bool:
    """Whether arguments are equal, tensors by value."""
    mine, structure = tree_flatten(given)
    theirs, noted_structure = tree_flatten(noted)
    return structure == noted_structure and all(
        a is b or (torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b)
        for a, b in zip(mine, theirs, strict=True)
    )
