"""Shared helpers of the checks: a small θ, z as a tensor, and statistical assertions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from zoopt.interfaces import (
    Change,
    Direction,
    Slot,
    Terms,
)
from zoopt.seeds import direction_seeds

SIGMAS = 5.0
"""Tolerance of a statistic in standard errors. All seeds are fixed, so results are reproducible."""

VARIANCES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda g: g @ g + g**2,
    "rademacher": lambda g: g @ g - g**2,
    "lowrank": lambda g: g @ g - g**2,
    "sphere": lambda g: len(g) / (len(g) + 2) * (g @ g + 2 * g**2) - g**2,
}
"""Variance of each component of (gᵀz)z by distribution, from the fourth moments of z.

E[z_i²z_j²] is 1 for independent components and d/(d+2) on the sphere; E[z_i⁴] is 3, 1 and 3d/(d+2).
If every component is ±1, (gᵀz)²z_i² is (gᵀz)², even if components depend on each other.
"""


def make_slots(
    shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float32
) -> tuple[Slot, ...]:
    """Makes a θ of ones with tensors of the given shapes, all in one group."""
    return tuple(
        Slot(index, f"param.{index}", torch.ones(shape, dtype=dtype))
        for index, shape in enumerate(shapes)
    )


def noise(
    direction: Direction,
    shape: Sequence[int],
    seed: int,
    index: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Returns z(seed)[index] as a tensor."""
    z = torch.zeros(tuple(shape), dtype=dtype)
    direction.add_(Change.of(z, index, ((seed, 1.0),)))
    return z


def materialize(direction: Direction, slots: Sequence[Slot], terms: Terms) -> Tensor:
    """Returns Σ_k c_k z(s_k) over all of θ in fp64, as a vector of shape (d,)."""
    parts = []
    for slot in slots:
        part = torch.zeros(slot.tensor.shape, dtype=torch.float64)
        direction.add_(Change.of(part, slot.index, terms))
        parts.append(part.flatten())
    return torch.cat(parts)


def seeds_of(number: int) -> list[int]:
    """Returns a fixed sequence of direction seeds of this length."""
    return [direction_seeds(3, step, 1)[0] for step in range(number)]


def require(holds: bool, message: str) -> None:
    """Raises ``AssertionError`` with the message if the condition is False."""
    if not holds:
        raise AssertionError(message)


def require_mean(samples: Tensor, expected: Tensor, what: str) -> None:
    """Requires the mean over dimension 0 to be within ``SIGMAS`` standard errors of expected."""
    mean = samples.mean(dim=0)
    error = samples.std(dim=0) / math.sqrt(len(samples)) + 1e-9 * (1 + expected.abs())
    off = ((mean - expected) / error).abs()
    worst = int(off.argmax())
    require(
        bool((off < SIGMAS).all()),
        f"{what}: component {worst} averages {mean[worst]:.6g} over {len(samples)} samples, "
        f"expected {expected[worst]:.6g}; this is {off[worst]:.1f} standard errors off",
    )


def worst(found: Tensor, expected: Tensor) -> float:
    """The largest absolute difference between components; 0 for empty tensors."""
    return max((found.double() - expected).abs().flatten().tolist(), default=0.0)
