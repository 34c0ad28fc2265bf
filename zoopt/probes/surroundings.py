"""The state in which probes are evaluated: eval mode, and equal buffers and random state."""

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
"""Integer buffers of at least this many bytes are assumed to be packed weights, never written."""


@contextmanager
def evaluation_mode(model: torch.nn.Module | None) -> Iterator[Callable[[], None]]:
    """A context with the model in eval mode, which restores all modes and buffers at its end.

    Without a model nothing is switched: modes and buffers are up to the caller.

    Yields:
        A function that restores the buffers within the context.
    """
    if model is None:
        yield lambda: None
        return
    modules = _modules(model)
    modes = [(module, module.training) for module in modules]
    buffers = _Buffers(modules)
    switched = any(training for _, training in modes)
    try:
        if switched:  # setting each module's attribute takes time
            model.eval()
        with in_memory_of("eval mode") if switched else nullcontext():
            yield buffers.restore
    finally:
        with deferred_signals():
            for module, training in modes:
                if module.training is not training:
                    object.__setattr__(module, "training", training)  # a module's own is slow
            buffers.restore()


class _Buffers:
    """A snapshot of the buffers of some modules, which can be restored.

    Packed weights are not copied, because that would take the memory of the model, nor are tensors
    that cannot be written to.
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
        """Restores the buffers' values and the modules' references to them."""
        for buffer, copy in self._copies:
            buffer.data.copy_(copy)  # not counted as a write
        for module, name, buffer in self._places:
            holder = module._buffers  # not a dict in a scripted module, which replaces no buffer
            if isinstance(holder, dict) and holder.get(name) is not buffer:
                holder[name] = buffer
            if id(buffer) in self._packed and self._packed[id(buffer)] != buffer._version:
                self._packed[id(buffer)] = buffer._version
                warnings.warn(
                    f"the objective writes to buffer {name!r} of a {type(module).__name__}, which "
                    f"is {buffer.nbytes >> 20} MB of integers and assumed to be packed weights: it "
                    "is not restored, so the probes of a step differ in it. Store it as an "
                    "attribute that the objective sets at each call",
                    stacklevel=2,
                )


def _is_packed(buffer: torch.Tensor) -> bool:
    real = buffer.is_floating_point() or buffer.is_complex() or buffer.dtype == torch.bool
    return not real and buffer.nbytes >= _PACKED


def _modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """All modules of a model, each once; several times faster than ``model.modules()``."""
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
    """A context for the probes of a step: :func:`evaluation_mode` and equal random states.

    Yields:
        A function to call before each probe, which restores buffers and random state.
    """
    rewind = same_randomness(devices)
    with evaluation_mode(model) as put_back:

        def begin() -> None:
            put_back()
            rewind()

        yield begin
