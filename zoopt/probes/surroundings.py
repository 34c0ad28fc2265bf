"""A probe's surroundings: modes, buffers and randomness as they must be, and one finite number."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch

from zoopt.parameters.selection import is_expanded
from zoopt.probes.cuda_graph import in_memory_of
from zoopt.probes.randomness import same_randomness
from zoopt.support.signals import deferred_signals

_PACKED = 1 << 20
"""Bytes of integers from which a buffer is taken for packed weights, which nothing writes to."""


@contextmanager
def evaluation_mode(model: torch.nn.Module | None) -> Iterator[Callable[[], None]]:
    """Eval mode inside (no dropout), every module's own mode and all buffers restored after.

    Given bare parameters there is no module to switch: that is the caller's.

    Yields:
        A function that puts the buffers back already inside.
    """
    if model is None:
        yield lambda: None
        return
    modules = _modules(model)
    modes = [(module, module.training) for module in modules]
    buffers = _Buffers(modules)
    switched = any(training for _, training in modes)
    try:
        if switched:  # each module's attribute takes its time
            model.eval()
        with in_memory_of("eval mode") if switched else nullcontext():
            yield buffers.restore
    finally:
        with deferred_signals():
            for module, training in modes:
                if module.training is not training:
                    module.training = training
            buffers.restore()


class _Buffers:
    """The buffers of some modules as they are, to be put back.

    No copy is kept of packed weights, which would take the memory of the model, nor of what cannot
    be written to.
    """

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        self._places = [
            (module, name, buffer)
            for module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        each = {id(b): b for *_, b in self._places if not b.is_inference() and not is_expanded(b)}
        self._copies = [(b, b.clone()) for b in each.values() if not _is_packed(b)]
        self._packed = {key: b._version for key, b in each.items() if _is_packed(b)}

    @torch.no_grad()
    def restore(self) -> None:
        """Puts them back: objects where they were, and numbers."""
        for buffer, copy in self._copies:
            buffer.data.copy_(copy)  # not counted as a write
        for module, name, buffer in self._places:
            holder = module._buffers  # of a scripted module no dict, and there nothing is replaced
            if isinstance(holder, dict) and holder.get(name) is not buffer:
                holder[name] = buffer
            if id(buffer) in self._packed and self._packed[id(buffer)] != buffer._version:
                self._packed[id(buffer)] = buffer._version
                warnings.warn(
                    f"the objective writes to buffer {name!r} of a {type(module).__name__}, which "
                    f"is {buffer.nbytes >> 20} MB of integers and was taken for packed weights: it "
                    "is not put back, and the probes of a step differ in it. Keep it in an "
                    "attribute that the objective sets anew",
                    stacklevel=2,
                )


def _is_packed(buffer: torch.Tensor) -> bool:
    real = buffer.is_floating_point() or buffer.is_complex() or buffer.dtype == torch.bool
    return not real and buffer.nbytes >= _PACKED


def _modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """All of a model's, each once, several times sooner than ``model.modules()`` names them."""
    found = {model: None}
    waiting = [model]
    while waiting:
        children = (m for m in waiting.pop()._modules.values() if m is not None and m not in found)
        for child in children:
            found[child] = None
            waiting.append(child)
    return list(found)


@contextmanager
def same_surroundings(
    model: torch.nn.Module | None, devices: Iterable[torch.device]
) -> Iterator[Callable[[], None]]:
    """Around the probes of a step: :func:`evaluation_mode`.

    Yields:
        What to call before each: it puts back the buffers and the random state of the first.
    """
    rewind = same_randomness(devices)
    with evaluation_mode(model) as put_back:

        def begin() -> None:
            put_back()
            rewind()

        yield begin
