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
from functools import cached_property

import torch
from torch import Tensor

from zoopt.interfaces import Slot
from zoopt.parameters.room import Room


def master_of(tensor: Tensor) -> Tensor | None:
    """A copy of a half-precision vector in fp32; None for other tensors, which are their own."""
    return tensor.detach().float() if tensor.ndim < 2 and is_half([tensor]) else None


def is_half(tensors: Iterable[Tensor]) -> bool:
    """Whether one of them is in half precision, or less."""
    return any(t.is_floating_point() and t.element_size() < 4 for t in tensors)


def vectors_alike(slots: Iterable[Slot]) -> list[list[Slot]]:
    """The vectors among some tensors of θ, those of one dtype on one device together.

    What counts is the dtype that they are perturbed in: a master's.
    """
    alike: dict[tuple[torch.dtype, torch.device], list[Slot]] = {}
    for slot in slots:
        if slot.tensor.ndim < 2:
            alike.setdefault((slot.exact.dtype, slot.exact.device), []).append(slot)
    return list(alike.values())


class Vectors:
    """θ's half-precision vectors and their masters, in few launches however many there are.

    Args:
        slots: θ, or a part of it.
    """

    def __init__(self, slots: Iterable[Slot]) -> None:
        alike: dict[tuple[torch.dtype, torch.device], list[tuple[Tensor, Tensor]]] = {}
        for slot in slots:
            if slot.master is not None:
                kind = slot.tensor.dtype, slot.tensor.device
                alike.setdefault(kind, []).append((slot.tensor, slot.master))
        self._parts = [_Alike(*zip(*pairs, strict=True)) for pairs in alike.values()]

    @torch.no_grad()
    def publish(self) -> None:
        """Rounds every master into its parameter."""
        for part in self._parts:
            torch._foreach_copy_(part.tensors, part.masters)

    @torch.no_grad()
    def adopt(self) -> None:
        """Takes over into the masters what somebody else has written to their parameters."""
        for part in self._parts:
            theirs, mine = part.copies
            torch._foreach_copy_(theirs.parts, part.tensors)
            torch._foreach_copy_(mine.parts, part.masters)
            kept = mine.all.to(theirs.all.dtype) == theirs.all
            torch.where(kept, mine.all, theirs.all.float(), out=mine.all)
            torch._foreach_copy_(part.masters, mine.parts)


class _Alike:
    """Vectors of one dtype on one device."""

    def __init__(self, tensors: tuple[Tensor, ...], masters: tuple[Tensor, ...]) -> None:
        self.tensors, self.masters = tensors, masters

    @cached_property
    def copies(self) -> tuple[Room, Room]:
        """Room for copies of both."""
        return Room(self.tensors), Room(self.masters)
