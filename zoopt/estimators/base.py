"""What every estimator is: a few probes in, a seed-space gradient out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from zoopt.interfaces import Direction, Evaluate, GradientEstimate


class ZOEstimator(ABC):
    """Estimates ∇L from values of L alone.

    An estimator decides at which probes θ + Σ a z(s) the loss is asked for, and turns the losses
    into coefficients of z(s). It knows neither the model nor the tensors of θ, so a new one is one
    class with one method; the conformance kit in :mod:`zoopt.testing` tests it once it is
    registered.

    Args:
        eps: the perturbation scale ε, in units of θ. A parameter group's own ``eps`` takes
            precedence.
        direction: the family of z, by name or as an object.
        engine: how probes are evaluated, by name; ``"auto"`` is in-place in fp32 and overlay where
            a parameter is in half precision.
        n: how many directions a step draws.

    Attributes:
        compares: how many consecutive probes it only puts in order, so that an oracle that compares
            will do; 0 where it takes the losses as numbers.
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
                f"eps={eps!r} must be a positive number: it is how far a probe moves θ along z "
                "(only zoopt.tune searches for one, eps='auto')"
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
            evaluate: gives the losses of a sequence of probes; higher is worse.
            seeds: the n directions of this step.
            eps: the scale to probe at.
        """

    def from_losses(
        self, losses: Sequence[float], seeds: Sequence[int], eps: float
    ) -> GradientEstimate:
        """The estimate that known losses of its probes give, in the order of the probes.

        Args:
            losses: what the probes gave.
            seeds: the n directions that they went along.
            eps: the scale that they were at.
        """
        known = list(losses)
        return self.estimate(lambda probes: known, seeds, eps)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(eps={self.eps}, n={self.n}, direction={self.direction!r})"
