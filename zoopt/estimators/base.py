"""The base class of estimators: a few probes in, a seed-space gradient out."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

from zoopt.interfaces import Direction, Evaluate, GradientEstimate, Probe


def recorded(losses: Sequence[float]) -> Evaluate:
    """An ``evaluate`` that returns known losses in order, however many calls the probes come in.

    >>> evaluate = recorded([0.5, 0.25, 1.0])
    >>> evaluate([Probe(())]), evaluate([Probe(((7, 0.1),)), Probe(((7, -0.1),))])
    ([0.5], [0.25, 1.0])
    """
    known = iter(losses)

    def evaluate(probes: Sequence[Probe]) -> list[float]:
        taken = list(itertools.islice(known, len(probes)))
        if len(taken) < len(probes):
            raise ValueError(f"only {len(losses)} losses are known, too few for the probes")
        return taken

    return evaluate


class ZOEstimator(ABC):
    """Estimates ∇L from values of L alone.

    An estimator chooses the probes θ + Σ a z(s) at which the loss is evaluated, and turns the
    losses into coefficients of z(s). It knows neither the model nor the tensors of θ, so a new one
    is one class with one method; the conformance kit in :mod:`zoopt.testing` tests it once it is
    registered.

    Args:
        eps: the perturbation scale ε, in units of θ. A parameter group's own ``eps`` takes
            precedence.
        direction: the family of z, by name or as an object.
        engine: how probes are evaluated, by name; ``"auto"`` is in-place in fp32 and overlay if
            a parameter is in half precision.
        n: directions per step.

    Attributes:
        compares: number of consecutive probes of which only the order is used, so that a
            comparison oracle suffices; 0 if the losses are used as numbers.
    """

    compares: int = 0

    def __init__(
        self,
        eps: float = 1e-3,
        direction: str | Direction = "gaussian",
        engine: str = "auto",
        n: int = 1,
    ) -> None:
        if isinstance(eps, str) or not eps > 0:
            raise ValueError(
                f"eps={eps!r} must be a positive number: the distance that a probe moves θ along z "
                "(eps='auto' searches for one, in zoopt.tune only)"
            )
        if n < 1:
            raise ValueError(f"n={n} directions: a step needs at least one")
        self.eps = eps
        self.direction = direction
        self.engine = engine
        self.n = n

    @abstractmethod
    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """ĝ along the given directions.

        Args:
            evaluate: returns the losses of a sequence of probes; higher is worse.
            seeds: the seeds of the step's n directions.
            eps: the perturbation scale ε.
        """

    def from_losses(
        self, losses: Sequence[float], seeds: Sequence[int], eps: float
    ) -> GradientEstimate:
        """The estimate from known losses of its probes.

        Args:
            losses: the probes' losses, in the order of the probes.
            seeds: the seeds of the step's n directions.
            eps: the perturbation scale ε.

        Raises:
            ValueError: there are fewer losses than probes.
        """
        return self.estimate(recorded(losses), seeds, eps)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(eps={self.eps}, n={self.n}, direction={self.direction!r})"
