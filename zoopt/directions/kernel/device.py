"""The current GPU and its stream, and uploads of small tables without waiting for the GPU.

``torch.tensor(values, device="cuda")`` returns only when the GPU has finished all queued work.
From pinned memory the copy is queued, and the host continues.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def current(device: torch.device) -> AbstractContextManager[object]:
    """A context in which kernels are launched on a given GPU."""
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    return torch.cuda.device(device) if elsewhere else nullcontext()


def stream_of(device: torch.device) -> int:
    """The current stream of a GPU, as a number; uploads are ordered only within a stream."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def uploaded(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Values of the host as a tensor on a device.

    Args:
        values: nested sequences of numbers, a numpy array, or a tensor on the CPU.
        dtype: of the result.
        device: of the result.
    """
    table = torch.as_tensor(values, dtype=dtype)
    if device.type != "cuda":
        return table.to(device)
    return table.pin_memory().to(device, non_blocking=True)
