"""Sphere directions: z uniform on the sphere of radius √d, so that E[z zᵀ] = I.

z = √d · g / ‖g‖ with g Gaussian over *all* of θ, so every probe moves θ by exactly ε√d. The norm is
computed once per seed, by generating g without storing it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from zoopt.directions.dense import DenseDirection
from zoopt.directions.kernel.fused import add_
from zoopt.directions.kernel.gaussian import GAUSSIAN
from zoopt.interfaces import Change, Slot, Terms

_REMEMBERED = 256
_PIECE, _GPU_PIECE = 1 << 20, 1 << 24
"""Elements of g generated at once; the host waits for each piece."""


class Sphere(DenseDirection):
    """z uniform on the sphere of radius √d over the whole of θ."""

    name = "sphere"
    unit = GAUSSIAN

    def __init__(self) -> None:
        self._slots: Sequence[Slot] = ()
        self._factors: dict[int, float] = {}

    def bind(self, slots: Sequence[Slot]) -> None:
        """Sets the tensors over which the norm is taken."""
        self._slots = tuple(slots)
        self._factors.clear()

    def scaled(self, terms: Terms) -> Terms:
        """Coefficients of the Gaussian: c · √d / ‖g(s)‖."""
        return tuple((seed, c * self._factor(seed)) for seed, c in terms)

    def _factor(self, seed: int) -> float:
        if seed not in self._factors:
            if len(self._factors) >= _REMEMBERED:
                self._factors.pop(next(iter(self._factors)))
            d = sum(slot.tensor.numel() for slot in self._slots)
            squares = math.fsum(square_sum(slot, seed) for slot in self._slots)
            self._factors[seed] = math.sqrt(d / squares) if squares else 1.0
        return self._factors[seed]


def square_sum(slot: Slot, seed: int) -> float:
    """‖g(seed)‖² over one tensor, summed in an order independent of the thread count."""
    total = 0.0
    piece = _PIECE if slot.tensor.device.type == "cpu" else _GPU_PIECE
    for first in range(0, slot.tensor.numel(), piece):
        size = min(piece, slot.tensor.numel() - first)
        g = torch.zeros(-(-size // 1024) * 1024, device=slot.tensor.device)
        change = Change.of(g[:size], slot.index, ((seed, 1.0),))
        add_([change], GAUSSIAN, first=first)
        total += math.fsum(g.view(-1, 1024).double().square().sum(dim=1).tolist())
    return total
