"""The global random state: of ``random``, of NumPy, and of torch on the CPU and on CUDA devices.

An objective may draw from any of these. All probes of a step see the same state, which a run sets
from its seed and the step. A generator of the objective's own is not known here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def same_randomness(devices: Iterable[torch.device]) -> Callable[[], None]:
    """A function to call before each probe, so that all probes see the state at the first call.

    After the last probe the states are as after a single evaluation.

    Args:
        devices: those that the objective computes on.
    """
    cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
    restore: Callable[[], None] | None = None

    def rewind() -> None:
        nonlocal restore
        if restore is None:
            restore = _saved(cuda)
        else:
            restore()

    return rewind


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the random state within the block, after which it is as before.

    It includes all CUDA devices once CUDA is in use, as an objective may use others than the model.

    Example:
        >>> def drawn():
        ...     with seeded(3):
        ...         return random.random(), torch.rand(1).item()
        >>> drawn() == drawn()
        True
    """
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = range(torch.cuda.device_count()) if in_use else ()
    restore = _saved(cuda)
    try:
        random.seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002, global
        for generator in (
            torch.default_generator,
            *(torch.cuda.default_generators[i] for i in cuda),
        ):
            generator.manual_seed(seed % (1 << 63))
        yield
    finally:
        restore()


def _saved(cuda: Iterable[int]) -> Callable[[], None]:
    """A function that restores the state as it is now."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002, global
    cpu, gpus = torch.get_rng_state(), {i: torch.cuda.get_rng_state(i) for i in cuda}

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002, global
        torch.set_rng_state(cpu)
        for index, state in gpus.items():
            torch.cuda.set_rng_state(state, index)

    return restore
