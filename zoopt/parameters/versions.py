"""How often tensors have been written to, as torch counts it."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def versions(tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """How often each has been written to, as torch counts it. See :func:`counted`.

    >>> x = torch.zeros(2)
    >>> before, after = versions([x]), versions([x.add_(1)])
    >>> before == after
    False
    """
    return tuple([tensor._version for tensor in tensors])


def counted(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Those that torch counts writes to, which are all but the ones made in inference mode."""
    return [tensor for tensor in tensors if not tensor.is_inference()]
