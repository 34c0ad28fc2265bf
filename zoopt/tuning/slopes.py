"""What a few probes at growing distances say of an objective: its slope, curvature and noise.

Along a direction z, c(ε) = (L(θ + εz) − L(θ − εz)) / 2ε tends to the slope zᵀ∇L. At small ε it
drowns in the noise of L, at large ε in the terms that a difference leaves out. In between it does
not depend on ε, and that is what is looked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoopt.estimators import ZOEstimator
from zoopt.interfaces import Evaluate, GradientEstimate, Probe

LADDER = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1e0)
"""The scales ε at which slopes are compared."""
AGREE = 0.98
"""Concordance from which on slopes at two scales are the same: they differ by a fifth."""


class Ladder(ZOEstimator):
    """Asks for the loss at θ and on both sides of it at every scale.

    Args:
        scales: the ε's.
        direction: the family of z.
        engine: how probes are evaluated.
    """

    def __init__(self, scales: Sequence[float], direction: Any, engine: str) -> None:
        super().__init__(scales[0], direction, engine)
        self.scales = tuple(scales)

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """The slope at the first scale; losses at θ, then at θ + εz and θ − εz for each scale."""
        (seed,) = seeds
        sides = [Probe(((seed, side * e),)) for e in self.scales for side in (+1, -1)]
        losses = evaluate([Probe(()), *sides])
        slope = (losses[1] - losses[2]) / (2 * self.scales[0])
        return GradientEstimate((seed,), (slope,), tuple(losses))


@dataclass(frozen=True)
class Slopes:
    """Central differences along K directions at J scales.

    Attributes:
        scales: the J scales ε.
        first: c(ε), shape (K, J): slopes along z.
        second: (L(θ + εz) − 2L(θ) + L(θ − εz)) / ε², shape (K, J): curvatures zᵀHz.
    """

    scales: tuple[float, ...]
    first: NDArray[np.float64]
    second: NDArray[np.float64]

    @classmethod
    def of(cls, scales: Sequence[float], losses: Sequence[Sequence[float]]) -> Slopes:
        """From the losses of a :class:`Ladder` along each direction.

        >>> Slopes.of([0.1], [[1.0, 1.3, 0.9]]).first.round(6).tolist()
        [[2.0]]
        """
        table = np.asarray(losses, dtype=np.float64)
        base, plus, minus = table[:, :1], table[:, 1::2], table[:, 2::2]
        eps = np.asarray(scales, dtype=np.float64)
        second = (plus - 2 * base + minus) / eps**2
        return cls(tuple(scales), (plus - minus) / (2 * eps), second)

    def agreement(self) -> list[float]:
        """How far the slopes at each scale but the first are those at the one before: 1 − D.

        D = Σ(a − b)² / Σ(a² + b²), Lin's coefficient of concordance (1989) about zero. It is 1 for
        equal slopes, about 0 for unrelated ones and for such as grow with the scale. A scale at
        which nothing changed agrees with nothing.
        """
        found = []
        for a, b in zip(self.first.T, self.first.T[1:], strict=False):
            size, usable = float(a @ a + b @ b), bool(a.any() and b.any())
            usable = usable and math.isfinite(size)
            found.append(1.0 - float((a - b) @ (a - b)) / size if usable else -math.inf)
        return found

    def best_scale(self) -> float:
        """The largest ε at which the slopes are still those of a smaller one.

        Where none agree fully, as those of an objective that moves in jumps, the ε at which they
        agree most.

        Raises:
            ValueError: at no scale did the objective change along any direction.
        """
        found = self.agreement()
        if max(found) == -math.inf:
            raise ValueError(
                f"the objective did not change for probes of eps {self.scales[0]:g} to "
                f"{self.scales[-1]:g}: it does not depend on the tuned parameters, or moves in "
                "jumps too rare for a batch. Take larger batches, or begin with a smooth surrogate"
            )
        agreeing = [j for j, concordance in enumerate(found) if concordance >= AGREE]
        return self.scales[1 + (agreeing[-1] if agreeing else int(np.argmax(found)))]

    def slope(self) -> float:
        """Root mean square of zᵀ∇L at the first scale: about ‖∇L‖ of a batch."""
        return _rms(self.first[:, 0])

    def curvature(self) -> float:
        """Mean of zᵀHz at the first scale: about the trace of the Hessian H.

        Where it is within its own error of 0, the root mean square, which is never less.
        """
        found = self.second[:, 0]
        mean, error = float(found.mean()), float(found.std()) / math.sqrt(len(found))
        return mean if mean > error else _rms(found)


def best_rate(slopes: Slopes, coefficients: Sequence[Sequence[float]], signal: float) -> float:
    """The learning rate at which a step gains most.

    For ĝ = Σ_k c_k z_k a step changes L by −η ĝᵀ∇L + η² ĝᵀHĝ/2, with ĝᵀ∇L ≈ √n R ‖∇B‖ √(Σ c_k²) and
    ĝᵀHĝ ≈ tr H · Σ c_k², where ∇B is the gradient of a batch and R the share of its square that
    other batches have in common. The best η is √n R ‖∇B‖ / (tr H √(Σ c_k²)); for SPSA n R / tr H.

    Args:
        slopes: of the objective, at the scale that probes have.
        coefficients: those of the run's own estimates on some batches, n each.
        signal: R.

    Raises:
        ValueError: the objective does not change at this scale.
    """
    squares = [sum(c * c for c in each) for each in coefficients]
    size = math.sqrt(sum(squares) / len(squares))
    slope, curvature = slopes.slope(), slopes.curvature()
    if not (slope > 0 and size > 0):
        raise ValueError(
            f"the objective did not change for probes of eps {slopes.scales[0]:g}: take "
            "eps='auto', larger batches, or begin with a smooth surrogate"
        )
    # Of an objective without curvature a probe's own length is all that is known of its scale.
    curvature = curvature or slope / slopes.scales[0]
    return math.sqrt(len(coefficients[0])) * signal * slope / (curvature * size)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
