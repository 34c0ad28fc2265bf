"""A whole pass on a GPU as one launch of the Triton kernel (``triton_source.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoopt.directions.kernel import triton_check
from zoopt.directions.kernel.check import Checked, Variant
from zoopt.directions.kernel.device import current, uploaded
from zoopt.directions.kernel.plan import Plan, plan_of
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Place

_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_WARPS = 4
_TILE = {"gaussian": 4, "rademacher": 8}
"""Blocks in a tile: two and four vectors of 16 bytes per thread, in half precision."""
_UNROLLED = 8
"""Number of terms up to which the kernel is compiled for their number, padded to a power of two."""
_ANY = 0

_checked = Checked("Triton", "runs a pass in many launches, slowly")


def usable(total: Sum, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernel exists for a sum, and gives the reference's results."""
    there = device.type in triton_check.DEVICES and total.unit.name in _TILE and dtype in _DTYPES
    if not there or _kernels() is None:
        return False
    terms = _compiled_for(total) or _UNROLLED + 3
    return _checked.agrees(Variant(total.unit, dtype, device, total.stochastic, terms), launch)


def launch(total: Sum, places: Sequence[Place], first: int = 0) -> None:
    """Applies a sum to contiguous places of one dtype on one device; see :func:`eager.add`."""
    blocks, tensor = _TILE[total.unit.name], places[0].tensor
    plan = plan_of(places, first, blocks)
    numbers = uploaded(_numbers(total, plan), torch.int32, tensor.device)
    terms, written = _compiled_for(total), _kernels()
    with current(tensor.device):
        written.add_to_pieces[(plan.tiles,)](
            plan.table,
            plan.owners,
            numbers,
            places[0].result,
            len(total.terms),
            unit=written.UNITS[total.unit.name],
            dtype=getattr(written.tl, _DTYPES[tensor.dtype]),
            terms=terms,
            stochastic=total.stochastic,
            blocks=blocks,
            num_warps=_WARPS,
            enable_fp_fusion=False,  # round products and sums separately
            sanitize_overflow=False,  # integers wrap
        )
    torch.autograd.graph.increment_version([place.result for place in places])


def _kernels() -> Any:
    return triton_check.kernels(triton_check.PASSES)


def _compiled_for(total: Sum) -> int:
    """The number of terms that the kernel is compiled for: 1, 2, 4, 8, or any."""
    number = len(total.terms)
    return 1 << (number - 1).bit_length() if 0 < number <= _UNROLLED else _ANY


def _numbers(total: Sum, plan: Plan) -> NDArray[np.int32]:
    """Decay and coefficients as bits, and the keys by piece, padded with terms of 0."""
    number, keys = len(total.terms), plan.keys(total)
    missing = max(_compiled_for(total) - number, 0)
    coefficients = np.array(
        [total.decay, *(c for _, c in total.terms), *missing * [0.0]], np.float32
    )
    padded = np.insert(keys, missing * [number], 0, axis=1)
    return np.concatenate([coefficients.view(np.int32), padded.reshape(-1)])
