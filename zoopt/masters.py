"""fp32 masters of half-precision vectors: norms' weights, biases, all of less than two dimensions.

Next to 1 the numbers of bf16 are 0.0078 apart. εz with ε = 0.001 then leaves 97.5 % of a norm's
weights where they are, and so does every update. So a vector in half precision has a master in
fp32, which is what is perturbed and updated; the parameter itself is the master rounded to nearest.
Vectors are few: the masters of a model of 135 million parameters take 140 KB.

A master is believed as far as it rounds to its parameter. Where it does not, somebody has written
to the parameter (loaded weights, say), and the parameter counts.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from zoopt.interfaces import Slot


def master_of(tensor: Tensor) -> Tensor | None:
    """A copy of a half-precision vector in fp32; None for other tensors, which are their own."""
    return tensor.detach().float() if tensor.ndim < 2 and is_half([tensor]) else None


def is_half(tensors: Iterable[Tensor]) -> bool:
    """Whether one of them is in half precision, or less."""
    return any(t.is_floating_point() and t.element_size() < 4 for t in tensors)


@torch.no_grad()
def publish(slots: Iterable[Slot]) -> None:
    """Rounds every master into its parameter."""
    for slot in slots:
        if slot.master is not None:
            slot.tensor.copy_(slot.master)


@torch.no_grad()
def adopt(slots: Iterable[Slot]) -> None:
    """Takes over into the masters what somebody else has written to their parameters."""
    for slot in slots:
        if slot.master is not None:
            theirs = slot.tensor.detach()
            kept = slot.master.to(theirs.dtype) == theirs
            slot.master.copy_(torch.where(kept, slot.master, theirs.float()))
