"""The random state that all probes of a step see."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import numpy as np
import torch


def same_randomness(devices: Iterable[torch.device]) -> Callable[[], None]:
    """A function to call before each probe, so that all probes see the current random state.

    After the last probe the states are as after a single evaluation. They include torch's
    generators on the CPU and the given CUDA devices, ``random``, and numpy's global generator.
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
