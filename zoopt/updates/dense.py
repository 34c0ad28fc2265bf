"""Applies updates that exist as tensors, for rules that keep state of θ's size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoopt.directions.kernel.round_into import round_into
from zoopt.interfaces import Slot, UpdateStep
from zoopt.parameters.masters import Vectors


def buffer(step: UpdateStep, slot: Slot, name: str) -> Tensor:
    """The rule's fp32 state of one tensor (fp64 for fp64), initially 0. 4 bytes per parameter."""
    state = step.state(slot)
    if name not in state:
        dtype = torch.promote_types(slot.tensor.dtype, torch.float32)
        state[name] = torch.zeros_like(slot.tensor, dtype=dtype, requires_grad=False)
    held: Tensor = state[name]
    return held


def settled_slots(step: UpdateStep) -> Iterator[Slot]:
    """θ's slots, after the engine has removed any probe."""
    step.engine.settle()
    yield from step.slots


@torch.no_grad()
def descend(step: UpdateStep, slot: Slot, change: Tensor) -> None:
    """θ ← decay · θ − lr · change, rounded stochastically in half precision."""
    value = slot.exact.detach().to(change.dtype) * step.decay[slot.index]
    value = value - step.lr[slot.group] * change
    terms = step.gradient.terms(slot)
    round_into(slot.exact, value, slot.index, seed=terms[0][0] if terms else 0)
    Vectors([slot]).publish()
