"""The global random state: of ``random``, of NumPy, and of torch on the CPU and other devices.

An objective may draw from any of these. All probes of a step see the same state, which a run sets
from its seed and the step. A generator of the objective's own is not known here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_CPU = torch.device("cpu")


def same_randomness(devices: Iterable[torch.device]) -> Callable[[], None]:
    """A function to call before each probe, so that all probes see the state at the first call.

    After the last probe the states are as after a single evaluation.

    Args:
        devices: those that the objective computes on.
    """
    devices = {_CPU, *devices}
    restore: Callable[[], None] | None = None

    def rewind() -> None:
        nonlocal restore
        if restore is None:
            restore = _saved(devices)
        else:
            restore()

    return rewind


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the random state within the block, after which it is as before.

    It includes all devices in use, as an objective may use others than the model.

    Example:
        >>> def drawn():
        ...     with seeded(3):
        ...         return random.random(), torch.rand(1).item()
        >>> drawn() == drawn()
        True
    """
    devices = {_CPU, *_in_use()}
    restore = _saved(devices)
    try:
        random.seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002, global
        for device in devices:
            state = torch.Generator(device).manual_seed(seed % (1 << 63)).get_state()
            _module(device).set_rng_state(state, **_at(device))
        yield
    finally:
        restore()


def _saved(devices: Iterable[torch.device]) -> Callable[[], None]:
    """A function that restores the state as it is now."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002, global
    states = {device: _module(device).get_rng_state(**_at(device)) for device in devices}

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002, global
        for device, state in states.items():
            _module(device).set_rng_state(state, **_at(device))

    return restore


def _in_use() -> Iterator[torch.device]:
    """The devices on which this process computes, apart from the CPU."""
    for kind in ("cuda", "xpu"):
        module: Any = torch.get_device_module(kind)
        if module.is_initialized():
            yield from (torch.device(kind, index) for index in range(module.device_count()))
    if torch.backends.mps.is_available():
        yield torch.device("mps")


def _module(device: torch.device) -> Any:
    """The module with a device's random state."""
    return torch.random if device.type == "cpu" else torch.get_device_module(device)


def _at(device: torch.device) -> dict[str, torch.device]:
    """The argument that names a device there."""
    return {} if device.type == "cpu" else {"device": device}
