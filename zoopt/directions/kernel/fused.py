"""The fused kernel: θ ← decay · θ + Σ_k c_k z(s_k), with one read and one write of θ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from zoopt.directions.kernel import (
    compilation,
    cpp_launch,
    eager,
    generator,
    triton_launch,
)
from zoopt.directions.kernel.check import Launch
from zoopt.directions.kernel.generator import NOISE, Unit, key
from zoopt.directions.kernel.rounding import HALF, accumulator
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Change, Place, Terms

KERNEL_VERSION = 3
"""Changes whenever z(seed) or the arithmetic of the update changes. Written to every log."""


@torch.no_grad()
def add_(
    changes: Sequence[Change],
    unit: Unit,
    *,
    stochastic_rounding: bool = False,
    compiled: bool | None = None,
    first: int = 0,
) -> None:
    """Each tensor ← decay · tensor + Σ_k c_k z(s_k)[index], accumulated in fp32 and rounded once.

    Args:
        changes: the changes, whose tensors and results share no memory. Tensors that are not
            contiguous are copied to contiguous ones.
        unit: the family that z is drawn from.
        stochastic_rounding: round fp16 and bf16 results up or down at random so that the mean is
            exact; otherwise to nearest. Without effect on fp32 and fp64.
        compiled: whether to run a compiled kernel where there is one; by the kernel mode if not
            given.
        first: offset of the tensors' first elements, if they are pieces of larger tensors.
    """
    compiled = compilation.allowed() if compiled is None else compiled
    for change, kinds in [(change, _alike(change.places)) for change in changes]:
        if not change:
            for place in change.places:
                if place.into is not None:
                    place.into.copy_(place.tensor)
            continue
        for (dtype, device), places in kinds.items():
            total = Sum.of(change, unit, stochastic_rounding and dtype in HALF)
            rows, afterwards = _in_rows(places)
            if rows:
                apply = _kernel(total, dtype, device) if compiled else eager.add
                apply(total, rows, first)
            for wanted, result in afterwards:
                wanted.copy_(result)


def _kernel(total: Sum, dtype: torch.dtype, device: torch.device) -> Launch:
    """The compiled kernel for a sum; the reference if there is none."""
    if triton_launch.usable(total, dtype, device):
        return triton_launch.launch
    return cpp_launch.launch if cpp_launch.usable(total, dtype, device) else eager.add


def _alike(places: Sequence[Place]) -> dict[tuple[torch.dtype, torch.device], list[Place]]:
    """The places by dtype and device."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Place]] = {}
    for place in places:
        tensor = place.tensor
        kinds.setdefault((tensor.dtype, tensor.device), []).append(place)
    for dtype, _ in kinds:
        if not dtype.is_floating_point:
            raise TypeError(
                f"cannot add noise to a tensor of dtype {dtype}; expected floating-point "
                "parameters: leave quantized or integer ones out with params=..."
            )
    return kinds


def _in_rows(places: Iterable[Place]) -> tuple[list[Place], list[tuple[Tensor, Tensor]]]:
    """The non-empty places, made contiguous, and (target, source) pairs to copy afterwards."""
    rows, afterwards = [], []
    for place in places:
        tensor, there = place.tensor, place.into
        straight = tensor.is_contiguous()
        if not tensor.numel():
            continue
        if straight and (there is None or there.is_contiguous()):
            rows.append(place)
            continue
        here = tensor.contiguous()
        if there is None or not there.is_contiguous():
            there = torch.empty_like(here) if straight else here
            afterwards.append((place.result, there))
        rows.append(Place(here, place.index, there))
    return rows, afterwards


@torch.no_grad()
def add_to_rows(
    rows: Tensor, ids: Tensor, numel: int, index: int, terms: Terms, unit: Unit
) -> Tensor:
    """The given rows of a matrix after :func:`add_` on the whole matrix.

    Args:
        rows: shape (..., width), the unperturbed rows.
        ids: shape (...), their row numbers in the matrix.
        numel: number of elements of the whole matrix.
        index: the matrix's position in θ.
        terms: (seed, coefficient) pairs.
        unit: the family that z is drawn from.
    """
    width = rows.shape[-1]
    places = ids.to(torch.int64).unsqueeze(-1) * width + torch.arange(width, device=rows.device)
    segment, within = places // generator.SEGMENT, (places % generator.SEGMENT).to(torch.int32)
    acc = rows.to(accumulator(rows.dtype))
    for seed, c in terms:
        z = unit.at(within, key(seed, index, 0, NOISE, rows.device))
        for number in range(1, -(-numel // generator.SEGMENT)):
            values = unit.at(within, key(seed, index, number, NOISE, rows.device))
            z = torch.where(segment == number, values, z)
        acc = acc + z.to(acc.dtype) * torch.tensor(c, dtype=acc.dtype)
    return acc.to(rows.dtype)
