"""What the engines share: moving every tensor of θ by a displacement, undisturbed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch

from zoopt.engines.interception.mode import opaque_modules, refuse_opaque
from zoopt.engines.interception.standins import Masters
from zoopt.interfaces import (
    Change,
    Direction,
    Displacement,
    Place,
    Slot,
    Terms,
    Value,
    Values,
)
from zoopt.parameters.masters import Vectors
from zoopt.probes.population import Population
from zoopt.support.signals import deferred_signals


class BaseEngine(ABC):
    """An engine over fixed slots and one direction family.

    Args:
        slots: θ.
        direction: the family of z.
        model: where θ is from, if that is known.

    Attributes:
        vectors: θ's vectors in half precision, which have masters.
        intercepts: whether it has to see every operation of the model.
        takes_population: whether it evaluates probes together only.
    """

    name: str
    intercepts = False
    takes_population = False

    def __init__(
        self,
        slots: Sequence[Slot],
        direction: Direction,
        model: torch.nn.Module | None = None,
    ) -> None:
        self.slots = tuple(slots)
        self.vectors = Vectors(self.slots)
        self._places = [Place(slot.exact, slot.index) for slot in self.slots]
        self.direction = direction
        if self.intercepts and model is not None:
            refuse_opaque(model, self.name)

    @abstractmethod
    def evaluate(self, displacements: Sequence[Displacement], values: Values) -> list[Any]:
        """The values at θ + displacement, for several displacements."""

    def revisit(self, displacement: Displacement) -> None:  # noqa: B027, most do nothing
        """Does to θ what :meth:`evaluate` did, for a replay. Here that left θ as it was."""

    def commit(self, displacement: Displacement, decay: Mapping[int, float]) -> None:
        """θ ← decay · θ + displacement, in one pass, stochastically rounded in half precision."""
        self.settle()
        changes = self.changes(lambda group, factor: displacement.groups[group], decay)
        self.write(changes, stochastic_rounding=True)

    def changes(
        self,
        terms: Callable[[int, float], Terms],
        decay: Mapping[int, float] = {},
        places: Sequence[Place] | None = None,
    ) -> list[Change]:
        """What is to become of θ.

        Args:
            terms: what the tensors of a parameter group get that are multiplied with a factor.
            decay: that factor by a slot's index, where it is not 1.
            places: what it is to become of, and where, for each slot; None for θ itself.
        """
        own = places is None and not decay
        alike = self._undecayed if own else self._alike(decay, places or self._places)
        return [
            Change(places, terms(group, factor), factor)
            for (group, factor), places in alike.items()
        ]

    @cached_property
    def _undecayed(self) -> dict[tuple[int, float], list[Place]]:
        return self._alike({}, self._places)

    def _alike(
        self, decay: Mapping[int, float], places: Sequence[Place]
    ) -> dict[tuple[int, float], list[Place]]:
        """θ's tensors by their parameter group, and by what they are multiplied with."""
        alike: dict[tuple[int, float], list[Place]] = {}
        for slot, place in zip(self.slots, places, strict=True):
            alike.setdefault((slot.group, decay.get(slot.index, 1.0)), []).append(place)
        return alike

    def write(self, changes: Sequence[Change], *, stochastic_rounding: bool = False) -> None:
        """Makes changes to θ, undisturbed."""
        with deferred_signals():
            self.direction.add_(*changes, stochastic_rounding=stochastic_rounding)
            self.vectors.publish()

    def settle(self) -> None:  # noqa: B027, most do nothing
        """Nothing to do where θ is never left displaced between probes."""

    @property
    def waiting(self) -> bool:
        """Whether an update is still to be applied, together with the next probe."""
        return False

    def chain(self) -> AbstractContextManager[None]:
        """Nothing to gain where a probe does not write θ."""
        return nullcontext()


class OneByOne(BaseEngine):
    """An engine that evaluates a probe after the other.

    Attributes:
        remade: elements of θ that it makes anew for every forward.
    """

    remade = 0

    def evaluate(self, displacements: Sequence[Displacement], values: Values) -> list[Any]:
        """The values, in order."""
        alone = Population(1, self.remade)
        return [self.probe(d, lambda: values(alone)[0]) for d in displacements]

    @abstractmethod
    def probe(self, displacement: Displacement, value: Value) -> Any:
        """The value at θ + displacement."""


class Writing(OneByOne):
    """An engine that writes a probe over θ.

    In half precision a vector would be rounded there, so operations that can be seen get its
    master. Where a module's cannot be (compiled, scripted), they get the rounded vector.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        direction: Direction,
        model: torch.nn.Module | None = None,
    ) -> None:
        super().__init__(slots, direction, model)
        hidden = model is not None and any(opaque_modules(model))
        self.masters = Masters(() if hidden else self.slots, model)
