"""Which elements of which tensors are processed together.

The kernel works on whole blocks, each with its own address, so blocks of different tensors can
share a launch. Long runs of blocks are processed where they are. The rest (small tensors, and the
ends of others) goes through a pool (``pool.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from zoopt.directions.kernel import generator
from zoopt.directions.kernel.device import uploaded
from zoopt.directions.kernel.generator import BLOCK
from zoopt.interfaces import Place
from zoopt.seeds import key_table

DIRECT = 256
"""Consecutive blocks from which a separate launch pays off."""


@dataclass(slots=True)
class Piece:
    """A run of elements of one tensor, within one segment.

    Attributes:
        elements: a 1-D view, or a small tensor of any shape as a whole.
        index: the tensor's position in θ.
        segment: the segment's number.
        first: offset of the first element within the segment.
        into: what results are written to, of the same shape; ``elements`` itself if in place.
        blocks: the number of blocks that it covers, at least in part.
    """

    elements: Tensor
    index: int
    segment: int
    first: int
    into: Tensor
    blocks: int = field(init=False)

    def __post_init__(self) -> None:
        self.blocks = -(-(self.first % BLOCK + self.elements.numel()) // BLOCK)

    @property
    def lead(self) -> int:
        """Elements of the first block that come before this piece."""
        return self.first % BLOCK

    def part(self, start: int, stop: int) -> Piece:
        """Its elements from start to stop."""
        elements = self.elements[start:stop]
        into = elements if self.into is self.elements else self.into[start:stop]
        return Piece(elements, self.index, self.segment, self.first + start, into)


class Rows:
    """The blocks of some pieces as the rows of a launch, in order.

    Args:
        pieces: the pieces.
        least: number of rows at least; more than there are blocks continue the last piece.

    Attributes:
        count: the number of rows.
    """

    def __init__(self, pieces: Sequence[Piece], least: int = 0) -> None:
        counts = [piece.blocks for piece in pieces]
        counts[-1] += max(0, least - sum(counts))
        self.count = sum(counts)
        device = pieces[0].elements.device
        row, self._firsts = 0, []
        for piece, count in zip(pieces, counts, strict=True):
            self._firsts.append(piece.first // BLOCK - row)
            row += count
        self._each = uploaded(counts, torch.int64, device)
        self._within = torch.arange(row, dtype=torch.int32, device=device)[:, None]
        self._places = [(piece.index, piece.segment) for piece in pieces]

    def addresses(self, seeds: Sequence[int], purpose: int) -> Tensor:
        """Each row's block number in its segment and key for each seed: int32 (count, K, 3)."""
        keys = key_table(seeds, [(*place, purpose) for place in self._places])
        table = np.empty((len(self._firsts), len(seeds), 3), np.int32)
        table[:, :, 0], table[:, :, 1:] = np.array(self._firsts)[:, None], keys
        owners = uploaded(table, torch.int32, self._each.device)
        addresses = owners.repeat_interleave(self._each, 0, output_size=self.count)
        addresses[:, :, 0] += self._within
        return addresses


@dataclass
class Batch:
    """Runs of whole blocks that share the launch which makes their words."""

    pieces: list[Piece] = field(default_factory=list)

    @property
    def rows(self) -> Rows:
        """Their blocks."""
        return Rows(self.pieces)

    def runs(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(rows, blocks of shape (n, 32, 16), results); the last two may be the same tensor."""
        row = 0
        for piece in self.pieces:
            blocks = piece.elements.view(-1, 32, 16)
            into = blocks if piece.into is piece.elements else piece.into.view(-1, 32, 16)
            yield slice(row, row + len(blocks)), blocks, into
            row += len(blocks)


def laid_out(places: Iterable[Place], first: int) -> tuple[list[Piece], list[Piece]]:
    """(long runs of whole blocks, all other pieces) of contiguous places.

    ``first`` is the offset of the places' first elements.
    """
    long: list[Piece] = []
    short: list[Piece] = []
    segment, offset = divmod(first, generator.SEGMENT)
    room = generator.SEGMENT - offset
    for place in places:
        whole = Piece(place.tensor, place.index, segment, offset, place.result)
        if whole.blocks < DIRECT and place.tensor.numel() <= room:
            short.append(whole)
            continue
        for piece in _by_segment(place, first):
            for part in _cut(piece):
                runs = part.blocks >= DIRECT and part.elements.shape[0] == part.blocks * BLOCK
                (long if runs else short).append(part)
    return long, short


def batches(runs: Iterable[Piece], most: int) -> Iterator[Batch]:
    """Runs of whole blocks in batches of at most ``most`` blocks."""
    batch, used = Batch(), 0
    for run in runs:
        position = 0
        while position < run.blocks:
            taken = min(most - used, run.blocks - position)
            batch.pieces.append(run.part(position * BLOCK, (position + taken) * BLOCK))
            position, used = position + taken, used + taken
            if used == most:
                yield batch
                batch, used = Batch(), 0
    if used:
        yield batch


def _by_segment(place: Place, first: int) -> Iterator[Piece]:
    flat = place.tensor.detach().view(-1)
    into = flat if place.into is None else place.into.detach().view(-1)
    for number, start, stop, offset in generator.spans(flat.shape[0], first):
        elements = flat[start:stop]
        result = elements if into is flat else into[start:stop]
        yield Piece(elements, place.index, number, offset, result)


def _cut(piece: Piece) -> Iterator[Piece]:
    """The incomplete first block, the whole blocks, and the incomplete last block of a run."""
    length = piece.elements.shape[0]
    start = min(-piece.lead % BLOCK, length)
    stop = start + (length - start) // BLOCK * BLOCK
    for begin, end in ((0, start), (start, stop), (stop, length)):
        if begin < end:
            yield piece.part(begin, end)
