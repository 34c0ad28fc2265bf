"""The engines' base classes: moving θ by a displacement, without interruption by signals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch

from zoopt.engines.interception.mode import opaque_modules, refuse_aliases, refuse_opaque
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
        model: the model that θ belongs to, if it is known.

    Attributes:
        vectors: θ's vectors in half precision, which have masters.
        intercepts: whether it has to intercept every operation of the model.
        takes_population: whether it only evaluates probes together.
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
            refuse_aliases(model, self.slots, self.name)

    @abstractmethod
    def evaluate(self, displacements: Sequence[Displacement], values: Values) -> list[Any]:
        """The values at θ + displacement, for several displacements."""

    def revisit(self, displacement: Displacement) -> None:  # noqa: B027, most do nothing
        """Repeats what :meth:`evaluate` does to θ, for a replay. Here that is nothing."""

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
        """The changes of all tensors of θ.

        Args:
            terms: returns the terms for the tensors of a parameter group with a decay factor.
            decay: the decay factor by a slot's index, if it is not 1.
            places: for each slot the tensor to start from and the one to write to; None for θ.
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
        """θ's tensors by parameter group and decay factor."""
        alike: dict[tuple[int, float], list[Place]] = {}
        for slot, place in zip(self.slots, places, strict=True):
            alike.setdefault((slot.group, decay.get(slot.index, 1.0)), []).append(place)
        return alike

    def write(self, changes: Sequence[Change], *, stochastic_rounding: bool = False) -> None:
        """Applies changes to θ, with signals deferred."""
        with deferred_signals():
            self.direction.add_(*changes, stochastic_rounding=stochastic_rounding)
            self.vectors.publish()

    def settle(self) -> None:  # noqa: B027, most do nothing
        """Does nothing, because θ is never left displaced between probes."""

    @property
    def waiting(self) -> bool:
        """Whether an update is deferred to the next probe."""
        return False

    def chain(self) -> AbstractContextManager[None]:
        """Has no effect, because a probe does not write to θ."""
        return nullcontext()


class OneByOne(BaseEngine):
    """An engine that evaluates one probe after another.

    Attributes:
        remade: number of elements of θ that it recomputes for every forward.
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
    """An engine that writes probes to θ itself.

    A perturbed half-precision vector would be rounded, so intercepted operations get its master.
    If the model has compiled or scripted modules, they get the rounded vector.
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
