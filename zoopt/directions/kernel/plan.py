"""How a pass is divided: θ into pieces, each within a segment, and pieces into tiles of blocks.

A compiled kernel changes all tensors of one dtype on one device in one launch. Its tiles find their
piece in a table, so a tensor may be of any size and lie anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoopt.directions.kernel.device import stream_of, uploaded
from zoopt.directions.kernel.generator import BLOCK, NOISE, ROUNDING, spans
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Place
from zoopt.seeds import key_table

COLUMNS = 6
"""Columns of the piece table: address, result's offset, elements, first block, lead, first tile."""

_PLANS = 1 << 12
_KEPT = 1 << 4
"""(seed, purpose) pairs whose keys a plan caches: the passes of a step, and some of the next."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The assignment of tiles to pieces.

    Attributes:
        table: on the device, int64 of shape (pieces, COLUMNS).
        owners: on the device, the piece of each tile.
        tiles: number of tiles.
        paths: on the host, the path of each piece's key by purpose, of shape (pieces, 3).
    """

    table: Tensor
    owners: Tensor
    tiles: int
    paths: dict[int, NDArray[np.uint64]]
    _keys: dict[tuple[int, int], NDArray[np.int32]] = field(default_factory=dict)

    def keys(self, total: Sum) -> NDArray[np.int32]:
        """The keys of a sum's terms, and of its rounding if there is any: shape (pieces, n, 2)."""
        seeds = [seed for seed, _ in total.terms]
        if len(seeds) > _KEPT:
            parts = [key_table(seeds, self.paths[NOISE])]
        else:
            parts = [self._keys_of(seed, NOISE) for seed in seeds]
        if total.stochastic:
            parts.append(self._keys_of(total.rounding_seed, ROUNDING))
        nothing = np.empty((len(self.table), 0, 2), np.int32)
        return np.concatenate(parts or [nothing], 1)

    def _keys_of(self, seed: int, purpose: int) -> NDArray[np.int32]:
        """The keys of one seed, cached: shape (pieces, 1, 2)."""
        found = self._keys.get((seed, purpose))
        if found is None:
            found = key_table([seed], self.paths[purpose])
            if len(self._keys) >= _KEPT:
                self._keys.pop(next(iter(self._keys)), None)
            self._keys[seed, purpose] = found
        return found


def plan_of(places: Sequence[Place], first: int, blocks: int) -> Plan:
    """The plan for contiguous places of one dtype on one device.

    It is cached, because θ rarely moves in memory. Each stream of a GPU has its own plan: on
    another stream the upload might not be finished.

    Args:
        places: at least one.
        first: offset of each place's first element within its tensor.
        blocks: number of blocks in a tile.
    """
    base, rows = places[0].result.data_ptr(), []
    for place in places:
        tensor, into = place.tensor, place.into
        address = tensor.data_ptr()
        there = (address if into is None else into.data_ptr()) - base
        rows.append((address, there, tensor.numel(), place.index))
    tensor = places[0].tensor
    where = tensor.device, stream_of(tensor.device)
    return _plan(tuple(rows), first, tensor.element_size(), blocks, *where)


@functools.lru_cache(maxsize=_PLANS)
def _plan(
    where: tuple[tuple[int, int, int, int], ...],
    first: int,
    size: int,
    blocks: int,
    device: torch.device,
    stream: int,
) -> Plan:
    """The plan for places (address, result's address minus the first one's, elements, index)."""
    rows, places, tiles = [], [], 0
    for address, there, length, index in where:
        for segment, start, stop, offset in spans(length, first):
            block, lead = divmod(offset, BLOCK)
            row = address + start * size, there + start * size, stop - start, block, lead, tiles
            rows.append(row)
            places.append((index, segment))
            tiles += -(-(lead + stop - start) // (blocks * BLOCK))
    pieces = np.array(rows, np.int64)
    counts = np.diff(pieces[:, 5], append=tiles)
    owners = np.repeat(np.arange(len(pieces), dtype=np.int32), counts)
    both = np.concatenate([pieces.reshape(-1).view(np.int32), owners])
    sent = uploaded(both, torch.int32, device)
    ends = 2 * pieces.size
    paths = {
        purpose: np.array([(*place, purpose) for place in places], np.uint64)
        for purpose in (NOISE, ROUNDING)
    }
    table = sent[:ends].view(torch.int64).view(-1, COLUMNS)
    return Plan(table, sent[ends:], tiles, paths)
