"""Small tensors as one: gathered in a buffer, changed there together, and scattered again.

A pass over hundreds of small tensors is then a few operations. In the buffer each piece begins at
the start of a block.

A step needs the same z in each of its passes. Where kernels are not compiled, generating z takes
most of a pass, so a pool keeps the z of the last seeds, and pools are kept between passes. What is
kept is bounded by a few megabytes, whatever the size of θ.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zoopt.directions.kernel.generator import BLOCK, Unit
from zoopt.directions.kernel.layout import Piece, Rows

POOL = 2048
"""Blocks in a pool: 4 MB in fp32."""

_KEPT = POOL * BLOCK
"""Elements of idle pools, and elements of z within a pool, that are kept."""


class Pool:
    """A buffer for some pieces.

    Args:
        pieces: the pieces, whose values are not read yet.
        dtype: of the buffer.

    Attributes:
        rows: the blocks.
        blocks: the buffer, shape (rows, 32, 16).
    """

    def __init__(self, pieces: Sequence[Piece], dtype: torch.dtype) -> None:
        self.rows = Rows(pieces, least=2)  # a single block would be compiled separately
        buffer = torch.zeros(self.rows.count * BLOCK, dtype=dtype, device=pieces[0].elements.device)
        self.blocks = buffer.view(-1, 32, 16)
        self._parts, start = [], 0
        for piece in pieces:
            part = buffer[start + piece.lead :][: piece.elements.numel()]
            self._parts.append(part.view(piece.elements.shape))
            start += piece.blocks * BLOCK
        self._recent: dict[tuple[Unit, int], Tensor] = {}

    @cached_property
    def product(self) -> Tensor:
        """A second buffer of the same shape, for one term of a sum."""
        return torch.empty_like(self.blocks)

    def gather(self, pieces: Iterable[Piece]) -> None:
        """Reads the pieces' elements."""
        torch._foreach_copy_(self._parts, [piece.elements for piece in pieces])

    def scatter(self, pieces: Iterable[Piece]) -> None:
        """Writes the results."""
        torch._foreach_copy_([piece.into for piece in pieces], self._parts)

    def remembered(self, unit: Unit, seed: int) -> Tensor | None:
        """A recent z(seed) of a family, of the buffer's shape and dtype."""
        z = self._recent.pop((unit, seed), None)
        if z is not None:
            self._recent[unit, seed] = z
        return z

    def room(self, unit: Unit, seed: int) -> Tensor:
        """Memory for z(seed), which the pool remembers; of many, the oldest gives way."""
        kept = max(1, _KEPT // self.blocks.numel())
        full = len(self._recent) >= kept
        z = self._recent.pop(next(iter(self._recent))) if full else torch.empty_like(self.blocks)
        self._recent[unit, seed] = z
        return z


_idle: dict[Any, Pool] = {}
_lock = threading.Lock()


@contextmanager
def pooled(pieces: Sequence[Piece], dtype: torch.dtype, keep: bool) -> Iterator[Pool]:
    """A pool with the pieces' elements, which receive its values at the end of the block.

    Args:
        pieces: up to a pool's number of blocks, of one device.
        dtype: of the buffer.
        keep: whether the pool is kept for the next pass over the same kind of pieces.
    """
    shapes = tuple((p.elements.shape, p.index, p.segment, p.first) for p in pieces)
    # What is allocated in inference mode cannot be written outside of it.
    kind = shapes, dtype, pieces[0].elements.device, torch.is_inference_mode_enabled()
    with _lock:
        pool = _idle.pop(kind, None)
    if pool is None:
        pool = Pool(pieces, dtype)
    pool.gather(pieces)
    yield pool
    pool.scatter(pieces)
    if not keep:
        return
    with _lock:
        _idle[kind] = pool
        total = sum(each.blocks.numel() for each in _idle.values())
        while total > _KEPT and len(_idle) > 1:
            total -= _idle.pop(next(iter(_idle))).blocks.numel()


def in_pools(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """The pieces in groups that fit into a pool."""
    group: list[Piece] = []
    used = 0
    for piece in pieces:
        if group and used + piece.blocks > POOL:
            yield group
            group, used = [], 0
        group.append(piece)
        used += piece.blocks
    if group:
        yield group
