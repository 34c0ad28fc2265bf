"""Which rows share a forward: those of like length, in as many forwards as padding is worth.

A row is padded to the longest of its forward, so a minibatch in one forward is mostly longer than
its texts together. On a CPU, which has no more to do than the tokens ask for, several forwards of
like rows take less time. A GPU computes a row more for nothing, and gets as few forwards as go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_FORWARD = 32.0
"""Tokens in whose time a CPU begins a forward: it reads the weights, and calls the operations.

Both are rough, of SmolLM2-135M on two cores; the cut depends little on them.
"""
_REMADE = 80.0
"""Tokens in whose time it perturbs all weights for a forward, where the engine does that."""


def beginning(model: torch.nn.Module, remade: int) -> float:
    """What a forward costs beside its tokens, in tokens; infinite on anything but a CPU.

    Args:
        model: what is asked.
        remade: elements of θ that the engine makes anew for each forward.
    """
    parameters = list(model.parameters())
    if any(parameter.device.type != "cpu" for parameter in parameters):
        return math.inf
    return _FORWARD + _REMADE * remade / max(1, sum(p.numel() for p in parameters))


def grouped(lengths: Sequence[int], most: int, beginning: float) -> list[slice]:
    """Cuts rows that are sorted by length into forwards with the least work.

    A forward of R rows up to a length T is R · T + ``beginning``. The best cut of the first j rows
    ends in a forward of i to j after a best cut of the first i (Bellman 1957).

    Args:
        lengths: of N rows, ascending.
        most: rows in a forward at most.
        beginning: what a forward costs beside its tokens; infinite for as few as can be.

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
