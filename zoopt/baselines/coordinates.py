"""Coordinates: maps the vector of a black-box optimizer to the weights of a model.

θ(x) = θ₀ + σ · s ⊙ (P x), where s is the standard deviation of each tensor's weights, so that a
standard normal x moves every weight by about σ of its tensor's standard deviation. P is the
identity, or has k random columns z(seed)/√k, generated on demand and never stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from zoopt import registry
from zoopt.interfaces import Change, Direction, Slot
from zoopt.seeds import direction_seeds

Vector = NDArray[np.float64]


class Coordinates:
    """The map from x to the weights of the slots; keeps a copy of the current weights, θ₀.

    Args:
        slots: θ.
        dimension: None for one coordinate per weight, or k for a random subspace.
        direction: distribution of the subspace's basis; ``"lowrank:4"`` for LoRA-like ones.
        sigma: σ, relative to the weights.
        seed: seed of the subspace.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        dimension: int | None,
        direction: str | Direction,
        sigma: float,
        seed: int,
    ) -> None:
        if not sigma > 0:
            raise ValueError(f"sigma={sigma} must be positive: it is the spread of candidates")
        if dimension is not None and dimension < 1:
            raise ValueError(f"dimension={dimension} must be at least 1, or None for all")
        self.slots = tuple(slots)
        self.origin = [slot.tensor.detach().clone() for slot in self.slots]
        self.scales = [sigma * spread for spread in spreads(self.origin)]
        self.dimension = dimension or sum(tensor.numel() for tensor in self.origin)
        self._seeds: tuple[int, ...] = ()
        if dimension is not None:
            self._direction = registry.make_direction(direction)
            self._direction.bind(self.slots)
            self._seeds = direction_seeds(seed, 0, dimension)

    @torch.no_grad()
    def write(self, x: Vector) -> None:
        """Sets θ ← θ(x)."""
        if self._seeds:
            self._write_subspace(x)
        else:
            self._write_all(x)

    def _write_all(self, x: Vector) -> None:
        start = 0
        for slot, origin, scale in zip(self.slots, self.origin, self.scales, strict=True):
            part = torch.from_numpy(x[start : start + origin.numel()]).view(origin.shape)
            dtype = torch.promote_types(origin.dtype, torch.float32)
            moved = origin.to(dtype) + scale * part.to(origin.device, dtype)
            slot.tensor.copy_(moved)
            start += origin.numel()

    def _write_subspace(self, x: Vector) -> None:
        changes = []
        for slot, origin, scale in zip(self.slots, self.origin, self.scales, strict=True):
            slot.tensor.copy_(origin)
            unit = scale / len(self._seeds) ** 0.5
            terms = tuple((s, unit * float(c)) for s, c in zip(self._seeds, x, strict=True))
            changes.append(Change.of(slot.tensor, slot.index, terms))
        self._direction.add_(*changes)


def spreads(tensors: Sequence[torch.Tensor]) -> list[float]:
    """The standard deviation of each tensor's elements.

    If it is 0, as for biases at 0 and gains at 1, the pooled one of all tensors is used instead; if
    that is 0 too (a LoRA's zeros, a vector of zeros), it is 1.
    """
    flat = [tensor.detach().double().flatten() for tensor in tensors]
    total = sum(x.numel() for x in flat)
    within = [float(x.std(correction=0)) for x in flat]
    overall = (sum(w * w * x.numel() for w, x in zip(within, flat, strict=True)) / total) ** 0.5
    return [w or overall or 1.0 for w in within]
