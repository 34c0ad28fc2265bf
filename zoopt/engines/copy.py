"""The copy engine: a probe writes θ + displacement over θ and puts a kept copy back afterwards.

Twice the memory of the weights; exact; the reference that the other engines are tested against.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoopt.engines.base import Writing
from zoopt.interfaces import Direction, Displacement, Losses, Slot
from zoopt.signals import deferred_signals


class Copy(Writing):
    """Keeps a copy of θ from the first probe of a step to its end. Restores bit for bit."""

    name = "copy"

    def __init__(
        self, slots: Sequence[Slot], direction: Direction, model: torch.nn.Module | None = None
    ) -> None:
        super().__init__(slots, direction, model)
        self._kept: list[Tensor] = []

    def probe(self, displacement: Displacement, loss: Losses) -> float:
        """The loss at θ + displacement; θ is itself again when this returns or raises."""
        if not self._kept:
            self._kept = [slot.exact.detach().clone() for slot in self.slots]
        try:
            self.write(self.changes(lambda group, factor: displacement.groups[group]))
            with self.masters.seen():
                return loss()
        finally:
            self._restore()

    def settle(self) -> None:
        """Lets go of the copy."""
        self._kept = []

    @torch.no_grad()
    def _restore(self) -> None:
        with deferred_signals():
            torch._foreach_copy_([slot.exact for slot in self.slots], self._kept)
            self.vectors.publish()
