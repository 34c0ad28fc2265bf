"""The copy engine: probes overwrite θ with θ + displacement; a copy is restored afterwards.

Twice the memory of the weights; exact; the reference that the other engines are tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoopt.engines.base import Writing
from zoopt.interfaces import Direction, Displacement, Place, Slot, Value, Values
from zoopt.support.signals import deferred_signals


class Copy(Writing):
    """Keeps a copy of θ from the first probe of a step to its end. Restores bit for bit."""

    name = "copy"

    def __init__(
        self, slots: Sequence[Slot], direction: Direction, model: torch.nn.Module | None = None
    ) -> None:
        super().__init__(slots, direction, model)
        self._kept: list[Place] = []
        """Copies of θ's tensors, each with the tensor to restore."""

    def evaluate(self, displacements: Sequence[Displacement], values: Values) -> list[Any]:
        """The values, in order; θ is restored when this returns or raises."""
        try:
            return super().evaluate(displacements, values)
        finally:
            self._restore()

    def probe(self, displacement: Displacement, value: Value) -> Any:
        """The value with θ moved to θ + displacement, where it remains."""
        if not self._kept:
            self._kept = self._copied()
        self.write(self.changes(lambda group, _: displacement.groups[group], places=self._kept))
        with self.masters.seen():
            return value()

    def settle(self) -> None:
        """Releases the copy."""
        self._kept = []

    @torch.no_grad()
    def _copied(self) -> list[Place]:
        theta = [slot.exact for slot in self.slots]
        copies = [torch.empty_like(tensor) for tensor in theta]
        torch._foreach_copy_(copies, theta)
        return [
            Place(copy, slot.index, slot.exact)
            for copy, slot in zip(copies, self.slots, strict=True)
        ]

    @torch.no_grad()
    def _restore(self) -> None:
        if self._kept:
            with deferred_signals():
                theta = [place.result for place in self._kept]
                torch._foreach_copy_(theta, [place.tensor for place in self._kept])
                self.vectors.publish()
