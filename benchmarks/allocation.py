"""Bytes that torch's allocator hands out."""

import torch

from zoopt.support.memory import peak_bytes

CPU = torch.device("cpu")


def peak_during(call, device=CPU):
    """Peak bytes on a device during the call, on top of what was allocated before it."""
    _, peak = peak_bytes(call, device)
    return peak


def bytes_of(tensors):
    """Bytes of the tensors themselves."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
