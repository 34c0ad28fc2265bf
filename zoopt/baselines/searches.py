"""The searches: optimizers from nevergrad and pycma, with their authors' defaults."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zoopt.baselines.coordinates import Vector
from zoopt.support.names import unknown

ARCHIVE_BYTES = 1 << 30
"""Size above which nevergrad's archive of candidates is pruned harder than by default."""

CMA_LIMIT = 5000
"""Maximum number of coordinates for pycma's full covariance: three d × d matrices."""


class Nevergrad:
    """An optimizer of nevergrad's registry.

    Its archive keeps 300 or more candidates, twice each: 48 GB at d = 10⁷. If they exceed
    ``ARCHIVE_BYTES``, fewer are kept, also in the optimizers that it delegates to.

    Args:
        name: a name in ``nevergrad.optimizers.registry``.
        d: number of coordinates.
        budget: total number of evaluations, which several optimizers use for planning; None if
            unknown.
        seed: seed of its random numbers.
        constants: attributes of the optimizer to set, such as the a and c of its SPSA, which
            default to 1e-5 and 0.1 for any problem.
    """

    def __init__(
        self,
        name: str,
        d: int,
        budget: int | None = None,
        seed: int = 0,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        import nevergrad as ng
        from nevergrad.optimization import metamodel

        import zoopt.integrations.nevergrad  # noqa: F401, registers zoopt's own

        if name not in ng.optimizers.registry:
            raise KeyError(unknown("nevergrad optimizer", name, ng.optimizers.registry))
        metamodel.float = _scalar
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.optimizer = ng.optimizers.registry[name](
                ng.p.Array(shape=(d,)), budget=budget, num_workers=1
            )
        # Python's random refuses numpy integers since 3.11.
        self.optimizer.parametrization.random_state.seed(int(seed) % 2**32)
        for attribute, value in (constants or {}).items():
            if not hasattr(self.optimizer, attribute):
                raise ValueError(f"nevergrad's {name} has no {attribute} to set to {value}")
            setattr(self.optimizer, attribute, value)
        self._candidate: Any = None
        kept = ARCHIVE_BYTES // (16 * d)
        if kept < 300:
            most = max(4, int(kept))
            for part in _parts(self.optimizer):
                part.pruning = ng.optimization.utils.Pruning(min_len=most // 4, max_len=most)

    @property
    def algorithm(self) -> str:
        """The names of the optimizer and of those that it has chosen to delegate to."""
        names = [part.name for part in _parts(self.optimizer)]
        return " > ".join(dict.fromkeys(names))

    fresh = True
    """nevergrad does not reveal which candidates it will compare."""

    def ask(self) -> Vector:
        """Returns the next candidate."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._candidate = self.optimizer.ask()
        return np.asarray(self._candidate.value, dtype=np.float64)

    def tell(self, loss: float) -> None:
        """Takes the loss of the candidate asked last."""
        self.optimizer.tell(self._candidate, loss)

    def recommend(self) -> Vector:
        """Returns nevergrad's recommendation."""
        return np.asarray(self.optimizer.recommend().value, dtype=np.float64)


def _scalar(prediction: Any) -> float:
    """Replaces ``float`` in nevergrad 1.0.12's metamodels, for arrays of one element.

    numpy refuses this conversion since 2.4, so NGOpt, which uses a metamodel, would fail.
    """
    return float(np.asarray(prediction).item())


def _parts(optimizer: Any) -> Iterator[Any]:
    """Yields an optimizer and those that it delegates to."""
    yield optimizer
    inner = [getattr(optimizer, "optim", None), *(getattr(optimizer, "optims", None) or ())]
    for part in inner:
        if part is not None and hasattr(part, "pruning"):
            yield from _parts(part)


class PyCMA:
    """CMA-ES from pycma (Hansen, Akimoto and Baudis), with its defaults.

    Args:
        d: number of coordinates.
        diagonal: separable CMA-ES, with a diagonal covariance of d numbers.
        seed: seed of its random numbers.
    """

    def __init__(self, d: int, diagonal: bool = False, seed: int = 0) -> None:
        import cma

        if d > CMA_LIMIT and not diagonal:
            raise ValueError(
                f"CMA-ES in {d:,} dimensions keeps matrices of {d * d * 8 / 1e9:,.1f} GB each: "
                f"use dimension=… of at most {CMA_LIMIT} to search a subspace, or diagonal=True"
            )
        options = {"seed": int(seed) % 2**31 + 1, "verbose": -9, "CMA_diagonal": diagonal}
        self.strategy = cma.CMAEvolutionStrategy(np.zeros(d), 1.0, options)
        self.algorithm = f"pycma {'separable ' if diagonal else ''}CMA-ES"
        self._points: list[Vector] = []
        self._losses: list[float] = []

    @property
    def fresh(self) -> bool:
        """Whether all losses of the last population are known."""
        return not self._points

    def ask(self) -> Vector:
        """Returns the next point of the population."""
        if not self._points:
            self._points = self.strategy.ask()
        return self._points[len(self._losses)]

    def tell(self, loss: float) -> None:
        """Takes the loss of the point asked last; the population's last one updates the search."""
        self._losses.append(loss)
        if len(self._losses) == len(self._points):
            self.strategy.tell(self._points, self._losses)
            self._points, self._losses = [], []

    def recommend(self) -> Vector:
        """Returns the mean of the distribution, pycma's estimate of the optimum."""
        return np.asarray(self.strategy.mean, dtype=np.float64)
