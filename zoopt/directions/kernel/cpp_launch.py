"""A whole pass on a CPU as one call of the C++ kernel (``passes.cpp``)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import numpy as np
import torch

from zoopt.directions.kernel import compilation, cpp_build
from zoopt.directions.kernel.check import Checked, Variant
from zoopt.directions.kernel.plan import plan_of
from zoopt.directions.kernel.rounding import accumulator
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Place
from zoopt.support.memory import ran_out

_UNITS = ("gaussian", "rademacher")
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_TERMS = 3
"""Number of terms in the check; the kernel takes any."""

_checked = Checked("C++", "runs its kernel uncompiled, slowly")


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
    if device.type != "cpu" or total.unit.name not in _UNITS or _library() is None:
        return False
    return _checked.agrees(Variant(total.unit, dtype, device, total.stochastic, _TERMS), launch)


def launch(total: Sum, places: Sequence[Place], first: int = 0) -> None:
    """Applies a sum to contiguous places of one dtype; see :func:`eager.add`."""
    library, dtype = _library(), places[0].tensor.dtype
    assert library is not None
    plan = plan_of(places, first, cpp_build.TILE)
    exact = torch.empty((), dtype=accumulator(dtype)).numpy().dtype
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
    library.zoopt_pass(ctypes.byref(whole), unit, which, total.stochastic)
    written = [place.result for place in places if not place.result.is_inference()]
    torch.autograd.graph.increment_version(written)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The library; None, after one warning, if it cannot be built."""
    try:
        with compilation.counted():
            library = cpp_build.build()
    except (OSError, RuntimeError) as error:
        if ran_out(error):
            raise
        compilation.log.warning(
            "zoopt runs its kernel uncompiled (the results are the same, but it is slower), "
            "because there is no C++ library: %s. Install a compiler (on Linux: "
            "apt-get install g++; on macOS: xcode-select --install).",
            compilation.reason(error),
        )
        return None
    library.zoopt_pass.argtypes = (ctypes.c_void_p, *3 * (ctypes.c_int32,))
    library.zoopt_pass.restype = None
    return library
