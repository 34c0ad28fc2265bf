"""fp32 masters of half-precision vectors: norm weights, biases, all with fewer than two dimensions.

Near 1 the spacing of bf16 is 0.0078. Adding εz with ε = 0.001 then leaves 97.5 % of a norm's
weights unchanged, and so does every update. So a vector in half precision has a master in fp32,
which is perturbed and updated; the parameter itself is the master rounded to nearest. Vectors are
few: the masters of a model of 135 million parameters take 140 KB.

Where a master does not round to its parameter, other code has written to the parameter (by loading
weights, for example), and the master takes over the parameter's value.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor

from zoopt.interfaces import Slot
from zoopt.parameters.room import Room


def master_of(tensor: Tensor) -> Tensor | None:
    """A copy of a half-precision vector in fp32; None for other tensors, which need no master."""
    return tensor.detach().float() if tensor.ndim < 2 and is_half([tensor]) else None


def is_half(tensors: Iterable[Tensor]) -> bool:
    """Whether any of them is in half precision or lower."""
    return any(t.is_floating_point() and t.element_size() < 4 for t in tensors)


def vectors_alike(slots: Iterable[Slot]) -> list[list[Slot]]:
    """The vectors among some tensors of θ, grouped by dtype and device.

    The dtype is the one that they are perturbed in, which is the master's if there is one.
    """
    alike: dict[tuple[torch.dtype, torch.device], list[Slot]] = {}
    for slot in slots:
        if slot.tensor.ndim < 2:
            alike.setdefault((slot.exact.dtype, slot.exact.device), []).append(slot)
    return list(alike.values())


class Vectors:
    """θ's half-precision vectors and their masters, processed together in few kernel launches.

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
        """Copies values that other code wrote to the parameters into their masters."""
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
        """Memory for copies of the tensors and of the masters."""
        return Room(self.tensors), Room(self.masters)
