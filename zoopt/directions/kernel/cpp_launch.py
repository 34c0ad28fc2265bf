"""Calls of the C++ library (``passes.cpp``): a whole pass on a CPU, rounding at random, signs."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoopt.directions.kernel import compilation, cpp_build
from zoopt.directions.kernel.check import Checked, Variant
from zoopt.directions.kernel.plan import plan_of
from zoopt.directions.kernel.rounding import accumulator
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Place

_UNITS, _DTYPES = list(cpp_build.UNITS), list(cpp_build.DTYPES)
_TERMS = 3
"""Number of terms in the check; the kernel takes any."""

INSTEAD = "computes in plain torch operations, many times slower"
_checked = Checked("C++", INSTEAD)


class _Pass(ctypes.Structure):
    """The fields of ``Pass`` in ``passes.cpp``."""

    _fields_ = (
        ("pieces", ctypes.c_void_p),
        ("owners", ctypes.c_void_p),
        ("tiles", ctypes.c_int64),
        ("results", ctypes.c_int64),
        ("numbers", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("terms", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    )


def usable(total: Sum, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernel exists for a sum, and gives the reference's results."""
    known = total.unit.name in cpp_build.UNITS and dtype in cpp_build.DTYPES
    if device.type != "cpu" or not known or library() is None:
        return False
    return _checked.agrees(Variant(total.unit, dtype, device, total.stochastic, _TERMS), launch)


def launch(total: Sum, places: Sequence[Place], first: int = 0) -> None:
    """Applies a sum to contiguous places of one dtype; see :func:`eager.add`."""
    plan, dtype = plan_of(places, first, cpp_build.TILE), places[0].tensor.dtype
    exact = np.float64 if accumulator(dtype) == torch.float64 else np.float32
    numbers = np.array([total.decay, *(c for _, c in total.terms)], exact)
    keys = plan.keys(total)
    whole = _Pass(
        plan.table.data_ptr(),
        plan.owners.data_ptr(),
        plan.tiles,
        places[0].result.data_ptr(),
        numbers.ctypes.data,
        keys.ctypes.data,
        len(total.terms),
        torch.get_num_threads(),
    )
    unit, which = _UNITS.index(total.unit.name), _DTYPES.index(dtype)
    functions: Any = library()
    functions.zoopt_pass(ctypes.byref(whole), unit, which, total.stochastic)
    torch.autograd.graph.increment_version([place.result for place in places])


def round_at_random(into: Tensor, values: Tensor, key: tuple[int, int], offset: int) -> None:
    """Rounds fp32 numbers at random to a run of half-precision elements within a segment.

    Args:
        into: the run, contiguous.
        values: the numbers, contiguous, of the same length.
        key: the segment's key for rounding.
        offset: of the first element within the segment.
    """
    functions: Any = library()
    where = values.data_ptr(), into.data_ptr(), len(values), offset
    functions.zoopt_round(*where, *key, _DTYPES.index(into.dtype), torch.get_num_threads())
    torch.autograd.graph.increment_version(into)


def signs(numbers: Tensor, keys: Tensor) -> Tensor:
    """z of Rademacher blocks, fp32 of shape (n, 32, 16).

    Args:
        numbers: int32 of shape (n,), the blocks' numbers in their segments.
        keys: int32 of shape (n, 2), contiguous like the numbers.
    """
    into = torch.empty(len(numbers), 32, 16, dtype=torch.float32)
    functions: Any = library()
    where = numbers.data_ptr(), keys.data_ptr(), len(numbers), into.data_ptr()
    functions.zoopt_signs(*where, torch.get_num_threads())
    return into


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library; None, after one warning, if it cannot be built."""
    return compilation.attempted(_built, "C++", INSTEAD)


def _built() -> ctypes.CDLL:
    built = cpp_build.build()
    pointer, word, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    built.zoopt_pass.argtypes = pointer, word, word, word
    built.zoopt_round.argtypes = pointer, pointer, size, *5 * (word,)
    built.zoopt_signs.argtypes = pointer, pointer, size, pointer, word
    for function in (built.zoopt_pass, built.zoopt_round, built.zoopt_signs):
        function.restype = None
    return built
