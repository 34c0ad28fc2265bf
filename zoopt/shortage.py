"""Which errors say that memory did not suffice."""

from __future__ import annotations

import torch

_SAID = ("out of memory", "can't allocate memory")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice.

    >>> ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    True
    >>> ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
