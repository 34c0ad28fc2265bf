"""Groups rows of similar length into forwards, to save padding.

A row is padded to the longest of its forward, so a minibatch in one forward usually has many
padding tokens. On a CPU, whose time is proportional to the tokens, several forwards of similar rows
take less time. On a GPU additional rows are nearly free, so it gets as few forwards as possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_FORWARD = 32.0
"""A forward's fixed cost on a CPU, in tokens: reading the weights and calling the operations.

This and the next number are rough, measured with SmolLM2-135M on two cores; the result depends
little on them.
"""
_REMADE = 80.0
"""Cost on a CPU, in tokens, of perturbing all weights for a forward, if the engine does that."""


def beginning(model: torch.nn.Module, remade: int) -> float:
    """A forward's fixed cost, in tokens; infinite except on a CPU.

    Args:
        model: the model.
        remade: number of elements of θ that the engine recomputes for each forward.
    """
    parameters = list(model.parameters())
    if any(parameter.device.type != "cpu" for parameter in parameters):
        return math.inf
    return _FORWARD + _REMADE * remade / max(1, sum(p.numel() for p in parameters))


def grouped(lengths: Sequence[int], most: int, beginning: float) -> list[slice]:
    """Splits rows that are sorted by length into forwards with the least total cost.

    A forward of R rows up to a length T costs R · T + ``beginning``. The best split of the first j
    rows consists of a forward of i to j and a best split of the first i (Bellman 1957).

    Args:
        lengths: of N rows, ascending.
        most: maximum number of rows in a forward.
        beginning: a forward's fixed cost; infinite for as few forwards as possible.

    Returns:
        Slices of the rows, in order.

    Example:
        >>> grouped([3, 3, 4, 40], most=4, beginning=16.0)
        [slice(0, 3, None), slice(3, 4, None)]
    """
    count = len(lengths)
    if math.isinf(beginning):
        return [slice(at, min(at + most, count)) for at in range(0, count, most)]
    costs, cuts = [0.0], [0]
    for stop in range(1, count + 1):
        length = lengths[stop - 1]
        starts = range(max(0, stop - most), stop)
        start = min(starts, key=lambda at: costs[at] + (stop - at) * length)
        costs.append(costs[start] + (stop - start) * length + beginning)
        cuts.append(start)
    found: list[slice] = []
    stop = count
    while stop:
        found.append(slice(cuts[stop], stop))
        stop = cuts[stop]
    return found[::-1]
