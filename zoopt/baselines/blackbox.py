"""BlackBox: tunes a model with an ask-and-tell optimizer, stepped like a ZOOptimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from zoopt.baselines.coordinates import Coordinates, Vector
from zoopt.interfaces import Direction
from zoopt.parameters.selection import Select, groups_of, slots_of
from zoopt.probes.closure import finite_number
from zoopt.probes.forward_only import forward_only
from zoopt.probes.randomness import same_randomness
from zoopt.probes.surroundings import evaluation_mode


class Search(Protocol):
    """A minimizer over ℝᵈ whose first point is near 0 and whose scale is 1."""

    @property
    def algorithm(self) -> str:
        """Name of the algorithm that runs; for a meta-optimizer, the one it chose."""

    @property
    def fresh(self) -> bool:
        """Whether the next point is the first of its population; True without populations."""

    def ask(self) -> Vector:
        """Returns the next point to evaluate."""

    def tell(self, loss: float) -> None:
        """Takes the loss at the point asked last."""

    def recommend(self) -> Vector:
        """Returns the point to use if the search ended now."""


class BlackBox:
    """Tunes parameters by evaluating the candidates of a :class:`Search`, one per step.

    It takes the same closures as :class:`zoopt.ZOOptimizer`. Candidates of one population see the
    same random state, so that they are compared on the same minibatch. Between steps θ holds the
    candidate evaluated last; :meth:`settle` sets it to the search's recommendation. A copy of θ is
    kept in memory.

    Args:
        source: a module, parameters or (name, parameter) pairs.
        search: constructs the search, given the number of coordinates.
        params: name patterns, or a predicate ``(name, parameter) -> bool``.
        dimension: None to search all parameters, or k for a random subspace of k dimensions.
        direction: distribution of the subspace's basis; ``"lowrank:4"`` for LoRA-like ones.
        sigma: spread of the candidates, in standard deviations of each tensor's weights.
        maximize: treat the closure's number as higher-is-better.
        seed: seed of the subspace.
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
        """Name of the algorithm that runs."""
        return self.search.algorithm

    @property
    def d(self) -> int:
        """Number of tuned scalars."""
        return sum(slot.tensor.numel() for slot in self.slots)

    def step(self, closure: Callable[[], Any]) -> float:
        """Evaluates one candidate and returns its value, in the closure's own sign.

        Raises:
            NonFiniteLossError: the value was NaN or infinite.
            TypeError: the closure returned something that is not one number.
        """
        sign = -1.0 if self.maximize else 1.0
        if self.search.fresh:
            self._rewind = same_randomness({slot.tensor.device for slot in self.slots})
        self.coordinates.write(self.search.ask())
        self._rewind()
        with evaluation_mode(self.model), forward_only():
            value = finite_number(closure(), f"step {self.steps}")
        self.search.tell(sign * value)
        self.steps += 1
        return value

    def settle(self) -> None:
        """Writes the recommendation into θ."""
        self.coordinates.write(self.search.recommend())
