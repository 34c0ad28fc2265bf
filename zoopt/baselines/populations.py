"""EvoTorch: evotorch's distribution-based searches on a model, one population per step."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from zoopt.baselines.coordinates import Coordinates
from zoopt.interfaces import Direction
from zoopt.parameters.selection import Select, groups_of, slots_of
from zoopt.probes.closure import finite_number
from zoopt.probes.forward_only import forward_only
from zoopt.probes.surroundings import same_surroundings
from zoopt.support.names import unknown

SEARCHES = ("PGPE", "SNES", "XNES")


class EvoTorch:
    """PGPE, SNES or XNES of evotorch (Toklu et al. 2023, arXiv 2302.12600).

    Candidates of one population see the same random state, like the probes of a step.

    PGPE uses the learning rates and the radius of the ClipUp paper (Toklu et al. 2020, arXiv
    2008.02387): with v the largest step of the center, radius 15 v and rate v / 2; here the radius
    is √d, that of a standard normal vector, in the coordinates of :class:`Coordinates`. SNES and
    XNES use evotorch's defaults. All use CMA-ES's population size, 4 + 3 ln d, made even for PGPE.

    Args:
        name: one of the three.
        source: a module, parameters or (name, parameter) pairs.
        params: name patterns, or a predicate ``(name, parameter) -> bool``.
        dimension: None to search all parameters, or k for a random subspace of k dimensions.
        direction: distribution of the subspace's basis.
        sigma: initial spread of the candidates, in standard deviations of each tensor's weights.
        maximize: treat the closure's number as higher-is-better.
        seed: seed of candidates and subspace.
    """

    def __init__(
        self,
        name: str,
        source: Any,
        *,
        params: Select = None,
        dimension: int | None = None,
        direction: str | Direction = "gaussian",
        sigma: float = 0.1,
        maximize: bool = False,
        seed: int = 0,
    ) -> None:
        if name not in SEARCHES:
            raise KeyError(unknown("search of evotorch", name, SEARCHES))
        self.model = source if isinstance(source, torch.nn.Module) else None
        pairs = [pair for group in groups_of(source, params) for pair in group["params"]]
        names, tensors = zip(*pairs, strict=True)
        slots = slots_of([{"params": tensors, "param_names": names}])
        self.coordinates = Coordinates(slots, dimension, direction, sigma, seed)
        self.maximize = maximize
        self.steps = 0
        self._closure: Callable[[], Any] | None = None
        d = self.coordinates.dimension
        self.algorithm = f"evotorch {name}, population {_population(name, d)}"
        self.search = _made(name, d, seed, self._value)

    def step(self, closure: Callable[[], Any]) -> float:
        """Evaluates a population and returns its mean value, in the closure's own sign."""
        self._closure = closure
        devices = {slot.tensor.device for slot in self.coordinates.slots}
        with same_surroundings(self.model, devices) as self._rewind:
            self.search.step()
        self.steps += 1
        mean = float(self.search.population.evals[:, 0].mean())
        return -mean if self.maximize else mean

    def settle(self) -> None:
        """Writes the center of the distribution into θ."""
        self._write(self.search.status["center"])

    def _value(self, x: torch.Tensor) -> torch.Tensor:
        assert self._closure is not None
        self._write(x)
        self._rewind()
        with forward_only():
            value = finite_number(self._closure(), f"step {self.steps}")
        return torch.tensor(-value if self.maximize else value, dtype=torch.float64)

    def _write(self, x: Any) -> None:
        self.coordinates.write(np.array(x.numpy(), dtype=np.float64))


def _population(name: str, d: int) -> int:
    size = 4 + math.floor(3 * math.log(d))
    return size + size % 2 if name == "PGPE" else size


def _made(name: str, d: int, seed: int, value: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evotorch import Problem
        from evotorch import algorithms as searches
        from evotorch.tools import set_default_logger_config

        set_default_logger_config(logger_level=logging.WARNING, override=True)
        problem = Problem(
            "min",
            value,
            solution_length=d,
            initial_bounds=(-1.0, 1.0),
            dtype=torch.float32,
            eval_dtype=torch.float64,
            seed=int(seed) % 2**31,
        )
        settings: dict[str, Any] = {
            "popsize": _population(name, d),
            "center_init": torch.zeros(d),
            "stdev_init": 1.0,
        }
        if name == "PGPE":
            fastest = math.sqrt(d) / 15
            settings |= {
                "center_learning_rate": fastest / 2,
                "stdev_learning_rate": 0.1,
                "optimizer": "clipup",
                "optimizer_config": {"max_speed": fastest},
            }
        return getattr(searches, name)(problem, **settings)
