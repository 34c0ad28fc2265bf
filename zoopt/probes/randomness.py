"""The random state that all probes of a step see."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch


def same_randomness(devices: Iterable[torch.device]) -> Callable[[], None]:
    """A function to call before each probe, so that all probes see the state at the first call.

    After the last probe the states are as after a single evaluation. They include torch's
    generators on the CPU and the given CUDA devices, ``random``, and numpy's global generator.
    """
    cuda = sorted({d.index or 0 for d in devices if d.type == "cuda"})
    states: list[tuple[Callable[[Any], object], Any]] = []

    def rewind() -> None:
        for restore, state in states:
            restore(state)
        if not states:
            states.append((random.setstate, random.getstate()))
            states.append((np.random.set_state, np.random.get_state()))  # noqa: NPY002, global
            states.append((torch.set_rng_state, torch.get_rng_state()))
            for index in cuda:
                restore = functools.partial(torch.cuda.set_rng_state, device=index)
                states.append((restore, torch.cuda.get_rng_state(index)))

    return rewind
