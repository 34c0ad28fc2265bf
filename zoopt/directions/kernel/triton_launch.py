"""A whole pass on a GPU as one launch: each tile looks up its piece in a table of addresses.

With the kernel compiled from ``fused.py`` a pass over hundreds of tensors takes hundreds of
launches and uploads, which a GPU waits for. This is that kernel written in Triton
(``triton_source.py``). Before its first use its results are compared, bit for bit, with eager
execution of the other one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoopt.directions.kernel import generator, triton_check
from zoopt.directions.kernel.device import current, stream_of, uploaded
from zoopt.directions.kernel.generator import BLOCK, NOISE, ROUNDING, Unit, spans
from zoopt.directions.kernel.rounding import HALF
from zoopt.interfaces import Change, Place, Terms
from zoopt.seeds import key_table

_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_WARPS = 4
_TILE = {"gaussian": 4, "rademacher": 8}
"""Blocks in a tile: two and four vectors of 16 bytes per thread, in half precision."""
_PLANS = 1 << 12
_KEPT = 1 << 4
"""(seed, purpose) pairs whose keys a plan caches: the passes of a step, and some of the next."""


@dataclass(frozen=True)
class Variant:
    """The properties that the kernel is compiled for.

    Attributes:
        unit: the family that z is drawn from.
        dtype: of the elements.
        stochastic: whether results are rounded stochastically.
        terms: number of terms: 1, 2, 4 or 8.
        device: of the elements.
    """

    unit: Unit
    dtype: torch.dtype
    stochastic: bool
    terms: int
    device: torch.device


@dataclass
class _State:
    broken: bool = False
    checked: set[Variant] = field(default_factory=set)


_state = _State()


def usable(variant: Variant, eager: Callable[..., None]) -> bool:
    """Whether the kernel exists for a variant and gives the right results.

    Args:
        variant: the variant.
        eager: :func:`fused.add_`, with which a variant is compared at the first call.
    """
    known = variant.unit.name in _TILE and variant.dtype in _DTYPES
    there = variant.device.type in triton_check.DEVICES and _kernels() is not None
    if not known or _state.broken or not there:
        return False
    if variant not in _state.checked:
        _state.broken = not triton_check.passes(
            lambda: _check(variant, eager), "runs a pass in many launches, slowly"
        )
        if _state.broken:
            return False
        _state.checked.add(variant)
    return True


def launch(
    variant: Variant,
    decay: float,
    terms: Terms,
    rounding_seed: int,
    places: Sequence[Place],
    first: int = 0,
) -> None:
    """Each place ← decay · place + Σ_k c_k z(s_k), rounded once.

    Args:
        variant: which kernel.
        decay: the factor of the elements.
        terms: (seed, coefficient) pairs, as many as the variant has terms.
        rounding_seed: seed of the stochastic rounding.
        places: contiguous, of the variant's dtype, on its device.
        first: offset of each place's first element within its tensor.
    """
    plan = _plan_of(variant, places, first)
    numbers = _numbers(variant, decay, terms, rounding_seed, plan)
    written: Any = _kernels()
    with current(variant.device):
        written.add_to_pieces[(plan.tiles,)](
            plan.table,
            plan.owners,
            uploaded(numbers, torch.int32, variant.device),
            places[0].result,
            unit=written.UNITS[variant.unit.name],
            dtype=getattr(written.tl, _DTYPES[variant.dtype]),
            terms=variant.terms,
            stochastic=variant.stochastic,
            blocks=_TILE[variant.unit.name],
            num_warps=_WARPS,
            enable_fp_fusion=False,  # round products and sums separately
            sanitize_overflow=False,  # integers wrap
        )
    torch.autograd.graph.increment_version([place.result for place in places])


def _kernels() -> Any:
    return triton_check.kernels(triton_check.PASSES)


@dataclass(frozen=True, eq=False)
class _Plan:
    """The assignment of tiles to pieces.

    Attributes:
        table: on the device, int64 of shape (pieces, COLUMNS).
        owners: on the device, the piece of each tile.
        tiles: number of tiles.
        places: on the host, (index, segment) of each piece.
        keys: on the host, int32 of shape (pieces, 2), by seed and purpose: a cache.
    """

    table: Tensor
    owners: Tensor
    tiles: int
    places: NDArray[np.uint64]
    keys: dict[tuple[int, int], NDArray[np.int32]] = field(default_factory=dict)


def _plan_of(variant: Variant, places: Sequence[Place], first: int) -> _Plan:
    device = variant.device
    base, rows = places[0].result.data_ptr(), []
    for place in places:
        tensor, into = place.tensor, place.into
        address = tensor.data_ptr()
        there = (address if into is None else into.data_ptr()) - base
        rows.append((address, there, tensor.numel(), place.index))
    where = tuple(rows)
    size = places[0].tensor.element_size()
    return _plan(where, first, size, _TILE[variant.unit.name], device, stream_of(device))


@functools.lru_cache(maxsize=_PLANS)
def _plan(
    where: tuple[tuple[int, int, int, int], ...],
    first: int,
    size: int,
    blocks: int,
    device: torch.device,
    stream: int,
) -> _Plan:
    """The plan for places (address, result's address minus the first one's, elements, index).

    It is cached, because θ rarely moves in memory. Each stream has its own plan: on another stream
    the upload might not be finished.
    """
    rows, places, tiles = [], [], 0
    for address, there, length, index in where:
        for segment, start, stop, offset in spans(length, first):
            block, lead = divmod(offset, BLOCK)
            row = address + start * size, there + start * size, stop - start, block, lead, tiles
            rows.append(row)
            places.append((index, segment))
            tiles += -(-(lead + stop - start) // (blocks * BLOCK))
    table = np.array(rows, np.int64)
    counts = np.diff(table[:, 5], append=tiles)
    owners = np.repeat(np.arange(len(table), dtype=np.int32), counts)
    both = np.concatenate([table.reshape(-1).view(np.int32), owners])
    sent = uploaded(both, torch.int32, device)
    ends = 2 * table.size
    numbered = np.array(places, np.uint64)
    return _Plan(sent[:ends].view(torch.int64), sent[ends:], tiles, numbered)


def _numbers(
    variant: Variant, decay: float, terms: Terms, rounding_seed: int, plan: _Plan
) -> NDArray[np.int32]:
    """The numbers that change between passes: coefficients, and keys by piece.

    Args:
        variant: which kernel.
        decay: the first coefficient.
        terms: the other coefficients, and the seeds of the keys.
        rounding_seed: as for :func:`launch`.
        plan: the pieces.
    """
    head = np.zeros(_kernels().HEAD, np.float32)
    head[: len(terms) + 1] = [decay, *(c for _, c in terms)]
    keys = [_keys(plan, seed, NOISE) for seed, _ in terms]
    if variant.stochastic:
        keys.append(_keys(plan, rounding_seed, ROUNDING))
    return np.concatenate([head.view(np.int32), np.concatenate(keys, 1).reshape(-1)])


def _keys(plan: _Plan, seed: int, purpose: int) -> NDArray[np.int32]:
    """The pieces' keys, shape (pieces, 2)."""
    found = plan.keys.get((seed, purpose))
    if found is None:
        found = key_table([seed], np.insert(plan.places, 2, purpose, axis=1))[:, 0]
        if len(plan.keys) >= _KEPT:
            del plan.keys[next(iter(plan.keys))]
        plan.keys[seed, purpose] = found
    return found


def _check(variant: Variant, eager: Callable[..., None]) -> None:
    """Raises unless the results on a sample equal those of eager execution.

    The sample has whole tiles; runs that are short or odd, begin within a block or at an odd
    address, or cross a segment's end; and sums that overflow in half precision or are subnormal.
    """
    sizes = [2 * BLOCK * max(_TILE.values()), 1, 513, 5000, 9000]
    values = torch.linspace(-12, 12, sum(sizes)).sinh().to(variant.device, variant.dtype)
    for first, scale in ((0, 1.0), (700, 1e-3), (generator.SEGMENT - 1300, 1e-6)):
        terms = tuple((seed + 1, scale / (seed + 1)) for seed in range(variant.terms))
        for apart in (False, True):
            results = []
            for mine in (True, False):
                theta = values.clone()
                result = torch.zeros_like(theta) if apart else theta
                parts = zip(torch.split(theta, sizes), torch.split(result, sizes), strict=True)
                places = [
                    Place(part, index, into if apart else None)
                    for index, (part, into) in enumerate(parts)
                ]
                if mine:
                    launch(variant, 0.9, terms, terms[0][0], places, first)
                else:
                    eager(
                        [Change(places, terms, 0.9)],
                        variant.unit,
                        stochastic_rounding=variant.stochastic,
                        first=first,
                    )
                bits = torch.int16 if variant.dtype in HALF else torch.int32
                results.append(result.view(bits))
            if not torch.equal(*results):
                raise RuntimeError("its results differ from those of eager execution")
