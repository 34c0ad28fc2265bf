"""The reference: the sum in plain torch operations, in chunks that stay in cache.

It runs on every device, and wherever no kernel could be compiled. Small tensors share a chunk, so
that hundreds of them do not take hundreds of times as many operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from zoopt.directions.kernel.device import uploaded
from zoopt.directions.kernel.generator import NOISE, ROUNDING, spans
from zoopt.directions.kernel.rounding import accumulator, noise_at, stochastic_round
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Place
from zoopt.seeds import key_table

_CHUNK, _GPU_CHUNK = 1 << 15, 1 << 23
"""Elements at once: few enough for a CPU's cache; on a GPU, for few launches."""


@dataclass(frozen=True)
class _Piece:
    """A run of elements of one tensor, within one segment.

    Attributes:
        elements: a 1-D view.
        into: where the results go, of the same shape.
        index: the tensor's position in θ.
        segment: the segment's number.
        offset: of the first element within the segment.
    """

    elements: Tensor
    into: Tensor
    index: int
    segment: int
    offset: int


def add(total: Sum, places: Sequence[Place], first: int = 0) -> None:
    """Applies a sum to contiguous places of one dtype on one device.

    Args:
        total: the sum.
        places: at least one.
        first: offset of each place's first element within its tensor.
    """
    on_cpu = places[0].tensor.device.type == "cpu"
    for pieces in _chunks(places, first, _CHUNK if on_cpu else _GPU_CHUNK):
        results = torch.split(_summed(total, pieces), [len(piece.elements) for piece in pieces])
        torch._foreach_copy_([piece.into for piece in pieces], list(results))


def _chunks(places: Iterable[Place], first: int, most: int) -> Iterator[list[_Piece]]:
    """The places in pieces, those in groups of at most ``most`` elements."""
    group: list[_Piece] = []
    room = most
    for place in places:
        flat, into = place.tensor.detach().view(-1), place.result.detach().view(-1)
        for segment, start, stop, offset in spans(len(flat), first):
            while start < stop:
                end = min(stop, start + room)
                here = slice(start, end)
                group.append(_Piece(flat[here], into[here], place.index, segment, offset))
                room, offset, start = room - (end - start), offset + end - start, end
                if not room:
                    yield group
                    group, room = [], most
    if group:
        yield group


def _summed(total: Sum, pieces: Sequence[_Piece]) -> Tensor:
    """The results for some pieces, one after the other."""
    theta = torch.cat([piece.elements for piece in pieces])
    device, dtype = theta.device, accumulator(theta.dtype)
    lengths = [len(piece.elements) for piece in pieces]
    counts = uploaded(lengths, torch.int64, device)
    done = accumulate(lengths[:-1], initial=0)
    behind = [piece.offset - before for piece, before in zip(pieces, done, strict=True)]
    places = torch.arange(len(theta), dtype=torch.int32, device=device)
    offsets = places + _for_each(uploaded(behind, torch.int32, device), counts, len(theta))

    def key(seed: int, purpose: int) -> Tensor:
        """Two words for each element."""
        table = key_table([seed], [(piece.index, piece.segment, purpose) for piece in pieces])
        words = uploaded(table[:, 0].T.copy(), torch.int32, device)
        return torch.stack([_for_each(word, counts, len(theta)) for word in words])

    numbers = uploaded([total.decay, *(c for _, c in total.terms)], dtype, device)
    acc = theta.to(dtype) * numbers[0]
    for (seed, _), c in zip(total.terms, numbers[1:], strict=True):
        acc = acc + total.unit.at(offsets, key(seed, NOISE)).to(dtype) * c
    if total.stochastic:
        noise = noise_at(offsets, key(total.rounding_seed, ROUNDING))
        acc = stochastic_round(acc, theta.dtype, noise)
    return acc.to(theta.dtype)


def _for_each(values: Tensor, counts: Tensor, length: int) -> Tensor:
    """A piece's value for each of its elements; a single piece's is broadcast."""
    if len(values) == 1:
        return values
    return values.repeat_interleave(counts, output_size=length)
