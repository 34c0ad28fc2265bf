"""Triton's kernels: taken where they are there, once they gave the numbers that they should."""

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
"""Where they run."""

PASSES = "zoopt.directions.kernel.triton_source"
"""The module of those that pass over θ."""

Check = Callable[[torch.dtype, torch.device], None]
"""Raises where a kernel, on a sample of its own, does not give what torch gives."""

log = logging.getLogger("zoopt")


@functools.cache
def kernels(module: str) -> ModuleType | None:
    """The module of some kernels; None without Triton."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def passes(check: Callable[[], None], instead: str) -> bool:
    """Whether a kernel passes its check, whose time counts as compiling.

    Args:
        check: raises if it does not.
        instead: what zoopt does then, for the one warning that says so.
    """
    try:
        with compilation.counted():
            check()
    except Exception as error:
        if ran_out(error):
            raise
        log.warning(
            "zoopt %s, which gives the same numbers, because its Triton kernel failed: %s",
            instead,
            compilation.reason(error),
        )
        return False
    return True


@functools.cache
def works(
    module: str, check: Check, dtype: torch.dtype, device: torch.device, instead: str
) -> bool:
    """Whether a kernel is there for a dtype on a device, and passes; found out once for each."""
    there = device.type in DEVICES and kernels(module) is not None
    return there and passes(functools.partial(check, dtype, device), instead)
