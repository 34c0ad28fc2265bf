"""Small tables go to a device without waiting for it.

``torch.tensor(values, device="cuda")`` returns when the GPU has done all that it was given before.
From pinned memory the copy takes its place in the queue, and the host goes on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
