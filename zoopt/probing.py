"""A probe's surroundings: modes, buffers and randomness as they must be, and one finite number."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def evaluation_mode(model: torch.nn.Module | None) -> Iterator[None]:
    """Eval mode inside (no dropout), every module's own mode and all buffers restored after.

    Given bare parameters there is no module to switch: that is the caller's.
    """
    if model is None:
        yield
        return
    modules = _modules(model)
    modes = [(module, module.training) for module in modules]
    named = (buffer for module in modules for buffer in module._buffers.values())
    buffers = [(buffer, buffer.clone()) for buffer in dict.fromkeys(named) if buffer is not None]
    if any(training for _, training in modes):  # each module's attribute takes its time
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            if module.training is not training:
                module.training = training
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)


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


def same_randomness(devices: Iterable[torch.device]) -> Callable[[], None]:
    """Call what this returns before each probe: all probes of a step see the same random state.

    After the last probe the states are where one evaluation would have left them. Covered are
    torch's generators on the CPU and the given CUDA devices, ``random``, and numpy's global one.
    """
    cuda = sorted({d.index or 0 for d in devices if d.type == "cuda"})
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002, an objective may draw from the global state
    gpus = [(index, torch.cuda.get_rng_state(index)) for index in cuda]

    def rewind() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        for index, state in gpus:
            torch.cuda.set_rng_state(state, index)

    return rewind


class NonFiniteLossError(ArithmeticError):
    """The objective was NaN or infinite, or given NaN. θ is as it was before the step."""


def finite_number(value: Any, where: str) -> float:
    """What a closure returned, as a float.

    Args:
        value: a float, a numpy scalar or a tensor of one element.
        where: where the run stands, for the message.

    Raises:
        TypeError: it is not one number.
        NonFiniteLossError: it is NaN or infinite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = f" of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
        raise TypeError(
            f"the objective returned {type(value).__name__}{shape}; expected one number "
            "(a float or a 0-d tensor): reduce it, for example with .mean()"
        ) from error
    if not math.isfinite(number):
        raise NonFiniteLossError(
            f"the objective returned {number} at {where}; θ is as it was before the step. A "
            "smaller lr is the usual cure where it grew first, a smaller eps where it came at once."
        )
    return number
