"""Triton kernels: used if Triton is installed, after a check of their results."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

import torch

from zoopt.directions.kernel import compilation

DEVICES = ("cuda",)
"""Device types on which they run."""

PASSES = "zoopt.directions.kernel.triton_source"
"""The module with the kernels for a pass over θ."""

Check = Callable[[torch.dtype, torch.device], None]
"""Raises if a kernel's results on a sample differ from torch's."""


@functools.cache
def kernels(module: str) -> ModuleType | None:
    """A module of kernels, imported; None without Triton."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


@functools.cache
def works(
    module: str, check: Check, dtype: torch.dtype, device: torch.device, instead: str
) -> bool:
    """Whether a kernel exists for a dtype and a device and passes its check; cached."""
    there = device.type in DEVICES and kernels(module) is not None
    checked = functools.partial(check, dtype, device)
    return there and compilation.passes(checked, "Triton", instead)
