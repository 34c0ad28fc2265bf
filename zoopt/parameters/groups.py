"""What parameter groups say of a step: their learning rates, their scales of ε, their decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoopt.interfaces import Displacement, Slot, Terms

Groups = Sequence[Mapping[str, Any]]
"""A torch optimizer's ``param_groups``."""


def each(groups: Groups, name: str) -> tuple[float, ...]:
    """An option of every group."""
    return tuple(float(group[name]) for group in groups)


def number(name: str, value: Any) -> float:
    """A group's rate or decay.

    Raises:
        ValueError: it is no number, or not a positive one (0 will do for all but ε).
    """
    if value == "auto":
        raise ValueError(
            f"{name}='auto': an optimizer sees no batches that it could search for rates with, as "
            f"zoopt.tune does. Give a number, or call zoopt.tune(..., {name}='auto'), which also "
            "writes what it found to auto.json in the run's folder"
        )
    found = float(value)
    if not math.isfinite(found) or found < 0 or (name == "eps" and found == 0):
        raise ValueError(f"{name}={found} must be a positive number")
    return found


def probed(groups: Groups, terms: Terms) -> Displacement:
    """A probe over all groups: each is moved along z in proportion to its own ε.

    The estimator works at the first group's ε; a group with another is probed at scale · z, where
    scale is its ε in units of the first one's.
    """
    return Displacement(tuple(tuple((s, a * x) for s, a in terms) for x in _scales(groups)))


def estimated(groups: Groups, terms: Terms) -> Displacement:
    """An estimate over all groups: one probed at scale · z has its part of ĝ as c/scale · z."""
    return Displacement(tuple(tuple((s, c / x) for s, c in terms) for x in _scales(groups)))


def decays(groups: Groups, slots: Sequence[Slot]) -> dict[int, float]:
    """What each tensor is multiplied with at an update, by the slot's index: 1 − ηλ, or 1."""
    factors = [1.0 - float(group["lr"]) * float(group["weight_decay"]) for group in groups]
    every = [bool(group["decay_1d"]) for group in groups]
    return {
        slot.index: factors[slot.group] if slot.tensor.ndim > 1 or every[slot.group] else 1.0
        for slot in slots
    }


def _scales(groups: Groups) -> tuple[float, ...]:
    eps = each(groups, "eps")
    return tuple(value / eps[0] for value in eps)
