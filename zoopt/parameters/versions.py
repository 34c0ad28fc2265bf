"""Version counters of tensors: how often torch has written to them."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def versions(tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Torch's count of writes to each tensor. See :func:`counted`.

    >>> x = torch.zeros(2)
    >>> before, after = versions([x]), versions([x.add_(1)])
    >>> before == after
    False
    """
    return tuple([tensor._version for tensor in tensors])


def counted(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors with a version counter: all except those created in inference mode."""
    return [tensor for tensor in tensors if not tensor.is_inference()]
