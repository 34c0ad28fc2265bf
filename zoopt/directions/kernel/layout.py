"""Which elements of which tensors one launch of the kernel processes.

A launch works on whole blocks, each with its own address, so blocks of different tensors can share
a launch. Long runs of blocks are processed in place. Short pieces (small tensors, and the ends of
others) are gathered in a scratch buffer that stays in cache, and scattered afterwards, so that a
model with hundreds of small tensors takes few launches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoopt.directions.kernel import generator
from zoopt.directions.kernel.device import uploaded
from zoopt.directions.kernel.generator import BLOCK
from zoopt.interfaces import Place

DIRECT = 256
"""Consecutive blocks from which a separate launch pays off."""

POOL = 2048
"""Blocks gathered for one launch: 4 MB in fp32."""


@dataclass(frozen=True)
class Piece:
    """A run of elements of one tensor, within one segment.

    Attributes:
        flat: the elements, a 1-D view.
        index: the tensor's position in θ.
        segment: the segment's number.
        first: offset of the first element within the segment.
        into: the tensor that results are written to; ``flat`` itself if in place.
    """

    flat: Tensor
    index: int
    segment: int
    first: int
    into: Tensor

    @property
    def lead(self) -> int:
        """Elements of the first block that come before this piece."""
        return self.first % BLOCK

    @property
    def blocks(self) -> int:
        """The number of blocks that it covers, at least in part."""
        return -(-(self.lead + self.flat.shape[0]) // BLOCK)

    @property
    def direct(self) -> bool:
        """Whether it is processed without a scratch buffer."""
        return self.blocks >= DIRECT and self.flat.shape[0] == self.blocks * BLOCK

    def part(self, start: int, stop: int) -> Piece:
        """Its elements from start to stop."""
        flat = self.flat[start:stop]
        into = flat if self.into is self.flat else self.into[start:stop]
        return Piece(flat, self.index, self.segment, self.first + start, into)


@dataclass
class Batch:
    """Pieces that are processed together."""

    direct: list[Piece] = field(default_factory=list)
    pooled: list[Piece] = field(default_factory=list)

    @property
    def pieces(self) -> list[Piece]:
        """All pieces, in the order of the rows."""
        return self.direct + self.pooled

    def runs(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(rows, blocks of shape (n, 32, 16), results); the last two may be the same tensor."""
        row = 0
        for piece in self.direct:
            blocks = piece.flat.view(-1, 32, 16)
            into = blocks if piece.into is piece.flat else piece.into.view(-1, 32, 16)
            yield slice(row, row + piece.blocks), blocks, into
            row += piece.blocks
        if not self.pooled:
            return
        # A single block would trigger a separate compilation.
        scratch = self.pooled[0].flat.new_zeros(max(2, _blocks(self.pooled)) * BLOCK)
        places, start = [], 0
        for piece in self.pooled:
            places.append(scratch[start + piece.lead :][: piece.flat.shape[0]])
            start += piece.blocks * BLOCK
        torch._foreach_copy_(places, [piece.flat for piece in self.pooled])
        blocks = scratch.view(-1, 32, 16)
        yield slice(row, row + len(blocks)), blocks, blocks
        torch._foreach_copy_([piece.into for piece in self.pooled], places)

    def addresses(self, keys: Callable[[Piece], Sequence[tuple[int, int]]]) -> Tensor:
        """(block's number in its segment, two words of a key) by block and key: int32 (n, K, 3).

        Args:
            keys: returns the K keys of a piece's blocks.
        """
        pieces = self.pieces
        counts = [piece.blocks for piece in pieces]
        if self.pooled and _blocks(self.pooled) < 2:
            counts[-1] = 2
        table, row = [], 0
        for piece, count in zip(pieces, counts, strict=True):
            table.append([(piece.first // BLOCK - row, *key) for key in keys(piece)])
            row += count
        device = pieces[0].flat.device
        owners = uploaded(table, torch.int32, device)
        each = uploaded(counts, torch.int64, device)
        addresses = owners.repeat_interleave(each, 0, output_size=row)
        addresses[:, :, 0] += torch.arange(row, dtype=torch.int32, device=device)[:, None]
        return addresses


def pieces_of(place: Place, first: int) -> Iterator[Piece]:
    """A place's elements, segment by segment; ``first`` is the first element's offset."""
    into = None if place.result is place.tensor else place.result.detach().view(-1)
    start = 0
    for number, part, offset in generator.segments(place.tensor.detach().view(-1), first):
        stop = start + part.shape[0]
        yield Piece(part, place.index, number, offset, part if into is None else into[start:stop])
        start = stop


def batches(pieces: Iterable[Piece], most: int) -> Iterator[Batch]:
    """The pieces in batches of about ``most`` blocks at most."""
    batch, used, pooled = Batch(), 0, 0
    for piece in pieces:
        for part in _cut(piece, most):
            blocks, direct = part.blocks, part.direct
            if used and (used + blocks > most or (not direct and pooled + blocks > POOL)):
                yield batch
                batch, used, pooled = Batch(), 0, 0
            (batch.direct if direct else batch.pooled).append(part)
            used += blocks
            pooled += 0 if direct else blocks
    if used:
        yield batch


def _cut(piece: Piece, most: int) -> Iterator[Piece]:
    """A small piece unchanged; a large one cut into incomplete ends and runs of whole blocks."""
    length = piece.flat.shape[0]
    if piece.blocks < DIRECT:
        yield piece
        return
    position = -piece.lead % BLOCK
    if position:
        yield piece.part(0, position)
    whole = position + (length - position) // BLOCK * BLOCK
    while position < whole:
        stop = min(position + most * BLOCK, whole)
        yield piece.part(position, stop)
        position = stop
    if whole < length:
        yield piece.part(whole, length)


def _blocks(pieces: list[Piece]) -> int:
    return sum(piece.blocks for piece in pieces)
