"""Memory for many small tensors, allocated at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Room:
    """One contiguous buffer for several tensors, and each tensor's part of it.

    Args:
        like: tensors of one dtype on one device.

    Example:
        >>> room = Room([torch.zeros(2, 3), torch.zeros(())])
        >>> room.all.shape, [tuple(part.shape) for part in room.parts]
        (torch.Size([7]), [(2, 3), ()])
    """

    def __init__(self, like: Sequence[Tensor]) -> None:
        sizes = [tensor.numel() for tensor in like]
        self.all = torch.empty(sum(sizes), dtype=like[0].dtype, device=like[0].device)
        parts = torch.split_with_sizes(self.all, sizes)
        self.parts = [
            part if tensor.ndim == 1 else part.view(tensor.shape)
            for part, tensor in zip(parts, like, strict=True)
        ]
