"""A GPU as the host sees it. Small tables go there without waiting for it.

``torch.tensor(values, device="cuda")`` returns when the GPU has done all that it was given before.
From pinned memory the copy takes its place in the queue, and the host goes on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the one that kernels are launched on."""
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    return torch.cuda.device(device) if elsewhere else nullcontext()


def stream_of(device: torch.device) -> int:
    """What is queued now on a GPU, as a number; what goes up there is only done in that queue."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def uploaded(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of numbers that the host made.

    Args:
        values: nested sequences of numbers, a numpy array, or a tensor on the CPU.
        dtype: of the result.
        device: where it is wanted.
    """
    table = torch.as_tensor(values, dtype=dtype)
    if device.type != "cuda":
        return table.to(device)
    return table.pin_memory().to(device, non_blocking=True)
