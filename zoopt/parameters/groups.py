"""Per-group settings of a step: learning rates, scales of ε, weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoopt.interfaces import Displacement, Slot, Terms

Groups = Sequence[Mapping[str, Any]]
"""A torch optimizer's ``param_groups``."""


def each(groups: Groups, name: str) -> tuple[float, ...]:
    """The value of an option in every group."""
    return tuple(float(group[name]) for group in groups)


def number(name: str, value: Any) -> float:
    """A group's learning rate, ε or decay, checked.

    Raises:
        ValueError: it is not a finite number, or is negative (or 0, for ε).
    """
    if value == "auto":
        raise ValueError(
            f"{name}='auto': an optimizer has no batches on which to search for it. Give a "
            f"number, or call zoopt.tune(..., {name}='auto'), which also writes the value found to "
            "auto.json in the run's folder"
        )
    found = float(value)
    if not math.isfinite(found) or found < 0 or (name == "eps" and found == 0):
        least = "positive" if name == "eps" else "0 or positive"
        raise ValueError(f"{name}={found} must be a finite number, {least}")
    return found


def probed(groups: Groups, terms: Terms) -> Displacement:
    """A probe's displacement of all groups, each in proportion to its own ε.

    The estimator uses the first group's ε; every group is perturbed along scale · z, where
    scale is its ε divided by the first group's.
    """
    return Displacement(tuple(tuple((s, a * x) for s, a in terms) for x in _scales(groups)))


def estimated(groups: Groups, terms: Terms) -> Displacement:
    """ĝ for all groups: the part of a group that was perturbed along scale · z is c/scale · z."""
    return Displacement(tuple(tuple((s, c / x) for s, c in terms) for x in _scales(groups)))


def decays(groups: Groups, slots: Sequence[Slot]) -> dict[int, float]:
    """The factor of each tensor at an update, by the slot's index: 1 − ηλ, or 1 without decay."""
    factors = [1.0 - float(group["lr"]) * float(group["weight_decay"]) for group in groups]
    every = [bool(group["decay_1d"]) for group in groups]
    return {
        slot.index: factors[slot.group] if slot.tensor.ndim > 1 or every[slot.group] else 1.0
        for slot in slots
    }


def _scales(groups: Groups) -> tuple[float, ...]:
    eps = each(groups, "eps")
    return tuple(value / eps[0] for value in eps)
