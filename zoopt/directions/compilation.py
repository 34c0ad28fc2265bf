"""Compiling the kernel once per variant, and falling back to eager where that cannot be done."""

from __future__ import annotations

import logging
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoopt.directions.rounding import accumulator

Source = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
"""(theta, first, keys, coefficients, rounding) -> None, in place on theta."""

COMPILE_FROM = 1 << 20
"""A θ of this many elements repays the seconds that compiling takes; a smaller one runs eagerly."""

log = logging.getLogger("zoopt")


class Variant(NamedTuple):
    """What a compiled kernel is specialized for. Lengths and numbers are not among it."""

    family: str
    blocked: bool
    stochastic: bool
    terms: int
    dtype: torch.dtype
    device: str


@dataclass
class _State:
    mode: str = "auto"
    broken: bool = False
    seconds: float = 0.0


_state = _State()
_kernels: dict[Variant, Source] = {}


def wanted(elements: int) -> bool:
    """Whether a θ of so many elements runs compiled kernels."""
    if _state.mode == "auto":
        return elements >= COMPILE_FROM
    return _state.mode == "compiled"


def seconds() -> float:
    """How long this process has spent compiling kernels so far."""
    return _state.seconds


@contextmanager
def kernel_mode(mode: str) -> Iterator[None]:
    """Forces ``"eager"`` or ``"compiled"`` kernels for the optimizers made in a with block.

    The default, ``"auto"``, compiles for a θ of a million elements and more.
    """
    if mode not in ("auto", "eager", "compiled"):
        raise ValueError(f"kernel mode {mode!r} is none of 'auto', 'eager' and 'compiled'")
    previous, _state.mode = _state.mode, mode
    try:
        yield
    finally:
        _state.mode = previous


def kernel(variant: Variant, source: Source) -> Source | None:
    """The compiled kernel of a variant; None, after one warning, where there is no compiler."""
    if _state.broken:
        return None
    if variant not in _kernels:
        started = time.perf_counter()
        try:
            _kernels[variant] = _compile(variant, source)
        except Exception as error:
            _state.broken = True
            log.warning(
                "zoopt runs its kernel uncompiled, which gives the same numbers, slowly, because "
                "torch.compile failed: %s. On Linux a C++ compiler is what it needs "
                "(apt-get install g++), on CUDA Triton (pip install triton).",
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            )
            return None
        _state.seconds += time.perf_counter() - started
    return _kernels[variant]


def _compile(variant: Variant, source: Source) -> Source:
    """Compiles and runs once on scratch, so that a failure cannot happen halfway through θ.

    Dynamo keeps compiled graphs by code object, so each variant gets one of its own.
    """
    assert isinstance(source, types.FunctionType)
    own = types.FunctionType(
        source.__code__.replace(co_name=f"zoopt_{variant.family}_{variant.terms}"),
        source.__globals__,
        source.__name__,
        source.__defaults__,
        source.__closure__,
    )
    compiled: Source = torch.compile(own, dynamic=True, fullgraph=True)
    device = variant.device
    compiled(
        torch.zeros(2048, dtype=variant.dtype, device=device),
        torch.zeros((), dtype=torch.int32, device=device),
        torch.zeros((variant.terms, 2), dtype=torch.int32, device=device),
        torch.zeros(variant.terms + 1, dtype=accumulator(variant.dtype), device=device),
        torch.zeros(2, dtype=torch.int32, device=device),
    )
    return compiled
