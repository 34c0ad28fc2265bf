"""The random state that all probes of a step see."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import numpy as np
import torch


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
