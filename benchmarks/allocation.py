"""Bytes that torch's allocator hands out."""

import torch

from zoopt.engines.memory import peak_bytes


def peak_during(call):
    """Peak bytes during the call, on top of what was allocated before it."""
    _, peak = peak_bytes(call, torch.device("cpu"))
    return peak


def bytes_of(tensors):
    """Bytes of the tensors themselves."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
