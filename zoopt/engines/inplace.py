"""The in-place engine (MeZO, arXiv 2305.17333): θ itself is perturbed; memory is the weights alone.

The engine stores θ's current offset and any committed update not applied yet. Moving θ to any
target (the next probe's displacement, or zero) then takes one pass:

    θ ← decay · θ + (committed − decay · offset + target)

A two-sided step takes three passes: +εz; −2εz; and restore and update together, +(ε − ηc)z. Within
:meth:`InPlace.chain` the update is deferred to the next probe, and the three become two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from zoopt.engines.base import Writing
from zoopt.interfaces import Direction, Displacement, Slot, Terms, Value
from zoopt.parameters.versions import counted, versions
from zoopt.support.signals import deferred_signals


class InPlace(Writing):
    """Perturbs θ in place and restores it by subtracting what was added.

    In fp32 a restored θ is within 2 ulp of max(|θ|, ε|z|) of what it was. In half precision the
    rounding of each pass is far coarser than an update: use ``overlay`` or ``copy`` there.
    """

    name = "inplace"

    def __init__(
        self, slots: Sequence[Slot], direction: Direction, model: torch.nn.Module | None = None
    ) -> None:
        super().__init__(slots, direction, model)
        self._nothing = Displacement(((),) * (1 + max((s.group for s in slots), default=0)))
        self._offset = self._nothing
        self._committed: tuple[Displacement, Mapping[int, float]] | None = None
        self._chained = False
        self._counted = counted(slot.tensor for slot in self.slots)

    def probe(self, displacement: Displacement, value: Value) -> Any:
        """The value with θ moved to θ + displacement, where it remains until the next call.

        Raises:
            RuntimeError: the objective itself wrote to θ.
        """
        self._move(displacement)
        before = versions(self._counted)
        with self.masters.seen():
            said = value()
        if versions(self._counted) != before:
            raise RuntimeError(
                "the objective wrote to a tuned parameter while engine='inplace' had perturbed it "
                "(as nn.Embedding(max_norm=...) does), so the engine cannot restore it: use "
                "engine='overlay' or engine='copy'"
            )
        return said

    def revisit(self, displacement: Displacement) -> None:
        """Moves θ as the probe did, so that a replay rounds like the run."""
        self._move(displacement)

    def commit(self, displacement: Displacement, decay: Mapping[int, float]) -> None:
        """Restores and updates θ in one pass; within :meth:`chain` that of the next probe."""
        if self._committed is not None:
            self.settle()
        self._committed = displacement, decay
        if not self._chained:
            self.settle()

    def settle(self) -> None:
        """Removes the probe from θ and applies a deferred update."""
        if self._offset or self._committed is not None:
            self._move(self._nothing)

    @property
    def waiting(self) -> bool:
        """Whether an update is deferred to the next probe."""
        return self._committed is not None

    @contextmanager
    def chain(self) -> Iterator[None]:
        """Defers each update to the next probe. θ is exact again after :meth:`settle`."""
        self._chained = True
        try:
            yield
        finally:
            self._chained = False
            self.settle()

    def _move(self, target: Displacement) -> None:
        committed, decay = self._committed or (self._nothing, {})

        def terms(group: int, factor: float) -> Terms:
            return _combine(
                (1.0, committed.groups[group]),
                (-factor, self._offset.groups[group]),
                (1.0, target.groups[group]),
            )

        with deferred_signals():
            updates = self._committed is not None
            self.write(self.changes(terms, decay), stochastic_rounding=updates)
            self._offset, self._committed = target, None


def _combine(*parts: tuple[float, Terms]) -> Terms:
    """Σ factor · terms, with one coefficient per seed, in order of first appearance."""
    total: dict[int, float] = {}
    for factor, terms in parts:
        for seed, c in terms:
            total[seed] = total.get(seed, 0.0) + factor * c
    return tuple((seed, c) for seed, c in total.items() if c != 0.0)
