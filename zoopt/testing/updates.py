"""Conformance check for update rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zoopt.engines import InPlace
from zoopt.interfaces import (
    Direction,
    Displacement,
    Terms,
    UpdateRule,
    UpdateStep,
)
from zoopt.testing.common import (
    make_slots,
    materialize,
    require,
)


def check_update(make_update: Callable[[], UpdateRule], direction: Direction | None = None) -> None:
    """Checks an update rule against its contract, with the in-place engine.

    It must descend, apply weight decay as given, depend on its inputs alone, not move θ in memory,
    and keep dense state in fp32 even for half-precision tensors.

    Args:
        make_update: constructs the same rule at each call.
        direction: the distribution of z; Gaussian by default.

    Raises:
        AssertionError: names the first property that does not hold.
    """
    if direction is None:
        from zoopt.directions import Gaussian

        direction = Gaussian()
    first, again = _Run(make_update(), direction), _Run(make_update(), direction)
    addresses = [slot.tensor.data_ptr() for slot in first.slots]
    before = first.theta()
    first.apply(((1, 1.0), (2, -0.5)))
    moved = first.theta() - before
    g = materialize(direction, first.slots, ((1, 1.0), (2, -0.5)))
    require(float(moved @ g) < 0, "the first update does not descend along −ĝ")
    again.apply(((1, 1.0), (2, -0.5)))
    for run in (first, again):
        run.apply(((3, 0.7),))
    require(torch.equal(first.theta(), again.theta()), "the same updates end at a different θ")
    require(addresses == [slot.tensor.data_ptr() for slot in first.slots], "θ was moved in memory")
    decayed = _Run(make_update(), direction)
    decayed.apply(((1, 0.0),), decay={0: 0.5, 1: 1.0, 2: 1.0})
    values = [slot.tensor.double().mean().item() for slot in decayed.slots]
    require(
        values == [0.5, 1.0, 1.0],
        f"for ĝ = 0 and decay 0.5, 1 and 1, ones became {values}: expected θ ← decay · θ, "
        "decoupled from the gradient",
    )
    half = _Run(make_update(), direction, torch.bfloat16)
    half.apply(((1, 1.0),))
    for state in half.states.values():
        for name, value in state.items():
            require(
                not isinstance(value, Tensor) or value.dtype == torch.float32,
                f"the state {name!r} of a bf16 tensor is not in fp32",
            )


class _Run:
    """A θ of ones with an update rule, moved by given estimates."""

    def __init__(
        self, update: UpdateRule, direction: Direction, dtype: torch.dtype = torch.float32
    ) -> None:
        self.slots = make_slots([(3, 5), (3, 5), (4,)], dtype)
        direction.bind(self.slots)
        self.update, self.direction = update, direction
        self.engine = InPlace(self.slots, direction)
        self.states: dict[int, dict[str, Any]] = {slot.index: {} for slot in self.slots}

    def apply(self, terms: Terms, decay: Mapping[int, float] | None = None) -> None:
        self.update.apply(
            UpdateStep(
                slots=self.slots,
                gradient=Displacement((terms,)),
                lr=(0.125,),
                decay=decay or {slot.index: 1.0 for slot in self.slots},
                engine=self.engine,
                direction=self.direction,
                state=lambda slot: self.states[slot.index],
            )
        )
        self.engine.settle()

    def theta(self) -> Tensor:
        return torch.cat([slot.tensor.double().flatten() for slot in self.slots])
