"""BlackBox: an ask-and-tell optimizer of vectors tunes a model, stepped as a ZOOptimizer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from zoopt.baselines.coordinates import Coordinates, Vector
from zoopt.interfaces import Direction
from zoopt.parameters.selection import Select, groups_of, slots_of
from zoopt.probes.closure import finite_number
from zoopt.probes.randomness import same_randomness
from zoopt.probes.surroundings import evaluation_mode


class Search(Protocol):
    """A minimizer over ℝᵈ whose first point is near 0 and whose scale is 1."""

    @property
    def algorithm(self) -> str:
        """What runs, by its own name: where a name only chooses among others, the chosen one."""

    @property
    def fresh(self) -> bool:
        """Whether the next point is the first of its population, or there are none."""

    def ask(self) -> Vector:
        """The next point to evaluate."""

    def tell(self, loss: float) -> None:
        """The loss at the point that was asked last."""

    def recommend(self) -> Vector:
        """The point to use if the search ended now."""


class BlackBox:
    """Tunes parameters by evaluating the candidates of a :class:`Search`, one a step.

    The same closures serve it and :class:`zoopt.ZOOptimizer`. Candidates of one population see the
    same random state, so that they are compared on the same minibatch. Between steps θ holds the
    candidate evaluated last; :meth:`settle` makes it the search's recommendation. It costs a copy
    of θ.

    Args:
        source: a module, parameters or (name, parameter) pairs.
        search: makes the search, given the number of its coordinates.
        params: name patterns, or a predicate ``(name, parameter) -> bool``.
        dimension: None to search all parameters, or k for a random subspace of k dimensions.
        direction: what the subspace is spanned by; ``"lowrank:4"`` for one of LoRAs.
        sigma: how far candidates spread, in standard deviations of each tensor's weights.
        maximize: treat the closure's number as higher-is-better.
        seed: what the subspace is drawn from.
    """

    def __init__(
        self,
        source: Any,
        search: Callable[[int], Search],
        *,
        params: Select = None,
        dimension: int | None = None,
        direction: str | Direction = "gaussian",
        sigma: float = 0.1,
        maximize: bool = False,
        seed: int = 0,
    ) -> None:
        self.model = source if isinstance(source, torch.nn.Module) else None
        pairs = [pair for group in groups_of(source, params) for pair in group["params"]]
        names, tensors = zip(*pairs, strict=True)
        self.slots = slots_of([{"params": tensors, "param_names": names}])
        self.coordinates = Coordinates(self.slots, dimension, direction, sigma, seed)
        self.search = search(self.coordinates.dimension)
        self.maximize = maximize
        self.steps = 0

    @property
    def algorithm(self) -> str:
        """What runs, by its own name."""
        return self.search.algorithm

    @property
    def d(self) -> int:
        """How many scalars are tuned."""
        return sum(slot.tensor.numel() for slot in self.slots)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> float:
        """Evaluates one candidate. Returns its value, in the closure's own sign.

        Raises:
            NonFiniteLossError: the value was NaN or infinite.
            TypeError: the closure returned something that is not one number.
        """
        sign = -1.0 if self.maximize else 1.0
        if self.search.fresh:
            self._rewind = same_randomness({slot.tensor.device for slot in self.slots})
        self.coordinates.write(self.search.ask())
        self._rewind()
        with evaluation_mode(self.model):
            value = finite_number(closure(), f"step {self.steps}")
        self.search.tell(sign * value)
        self.steps += 1
        return value

    def settle(self) -> None:
        """Writes the recommendation into θ."""
        self.coordinates.write(self.search.recommend())
