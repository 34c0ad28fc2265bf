"""Triton kernels: used if Triton is installed, after a check of their results."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from types import ModuleType

import torch

from zoopt.directions.kernel import compilation
from zoopt.support.memory import ran_out

DEVICES = ("cuda",)
"""Device types on which they run."""

PASSES = "zoopt.directions.kernel.triton_source"
"""The module with the kernels for a pass over θ."""

Check = Callable[[torch.dtype, torch.device], None]
"""Raises if a kernel's results on a sample differ from torch's."""

log = logging.getLogger("zoopt")


@functools.cache
def kernels(module: str) -> ModuleType | None:
    """A module of kernels, imported; None without Triton."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def passes(check: Callable[[], None], instead: str) -> bool:
    """Whether a kernel passes its check; the time it takes counts as compilation.

    Args:
        check: raises if the kernel does not work.
        instead: what zoopt does in that case, for the warning.
    """
    try:
        with compilation.counted():
            check()
    except Exception as error:
        if ran_out(error):
            raise
        log.warning(
            "zoopt %s (the results are the same), because its Triton kernel failed: %s",
            instead,
            compilation.reason(error),
        )
        return False
    return True


@functools.cache
def works(
    module: str, check: Check, dtype: torch.dtype, device: torch.device, instead: str
) -> bool:
    """Whether a kernel exists for a dtype and a device and passes its check; cached."""
    there = device.type in DEVICES and kernels(module) is not None
    return there and passes(functools.partial(check, dtype, device), instead)
