"""Slope, curvature and noise of an objective, from a few probes at growing distances.

Along a direction z, c(ε) = (L(θ + εz) − L(θ − εz)) / 2ε tends to the slope zᵀ∇L. At small ε the
noise of L dominates its error, at large ε the truncation error. The ε with the least total error is
sought (Moré and Wild 2012, "Estimating derivatives of noisy simulations", ACM TOMS 38(3)).
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
"""The scales ε at which slopes are measured."""
_BENT = 3.0
"""Largest usable ratio of a probe's even (curvature) part in ε to its odd (slope) part."""


class Ladder(ZOEstimator):
    """An estimator that evaluates the loss at θ, and on both sides of it at every scale.

    Args:
        scales: the scales ε.
        direction: the distribution of z.
        engine: how probes are evaluated.
    """

    def __init__(self, scales: Sequence[float], direction: Any, engine: str) -> None:
        super().__init__(scales[0], direction, engine)
        self.scales = tuple(scales)

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """Returns the slope at the first scale; losses at θ, then θ + εz and θ − εz per scale."""
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
        """Computes slopes and curvatures from a :class:`Ladder`'s losses along each direction.

        >>> Slopes.of([0.1], [[1.0, 1.3, 0.9]]).first.round(6).tolist()
        [[2.0]]
        """
        table = np.asarray(losses, dtype=np.float64)
        base, plus, minus = table[:, :1], table[:, 1::2], table[:, 2::2]
        eps = np.asarray(scales, dtype=np.float64)
        second = (plus - 2 * base + minus) / eps**2
        return cls(tuple(scales), (plus - minus) / (2 * eps), second)

    def errors(self) -> list[float]:
        """The root mean square error of the slopes at each scale.

        The noise δ of L is estimated from the losses at the smallest scale, all of whose
        differences count as noise; a slope's noise is δ/√2ε. The truncation error of a scale is the
        difference of its slopes from those at the scale below, beyond the noise of both. The error
        is infinite if most slopes are 0, as for a piecewise constant objective, or if curvature
        dominates, so that both sides are mostly worse (or better) than θ.
        """
        eps = np.asarray(self.scales)
        moved = self.first[:, 0] ** 2 + (self.second[:, 0] * eps[0] / 2) ** 2
        noise = eps[0] ** 2 * float(moved.mean()) / 2 / (2 * eps**2)
        left_out = np.zeros(len(eps))
        for j in range(1, len(eps)):
            differ = float(((self.first[:, j] - self.first[:, j - 1]) ** 2).mean())
            left_out[j] = max(0.0, differ - noise[j] - noise[j - 1])
        bent = _rms(self.second) * eps / 2 > _BENT * _rms(self.first)
        silent = (self.first == 0).mean(axis=0) > 0.5
        errors = np.where(bent | silent, np.inf, np.sqrt(noise + left_out))
        return [float(error) if math.isfinite(error) else math.inf for error in errors]

    def best_scale(self) -> float:
        """The ε at which slopes have the least error.

        Raises:
            ValueError: no scale has a finite error.
        """
        errors = self.errors()
        if min(errors) == math.inf:
            raise ValueError(
                f"probes with eps {self.scales[0]:g} to {self.scales[-1]:g} do not measure a "
                "slope: the objective does not depend on the tuned parameters, or changes in jumps "
                "too rare for one batch. Use larger batches, start with a smooth surrogate, or "
                "give eps"
            )
        return self.scales[int(np.argmin(errors))]

    def slope(self) -> float:
        """Root mean square of zᵀ∇L at the first scale, which approximates ‖∇L‖ of a batch."""
        return float(_rms(self.first)[0])

    def curvature(self) -> float:
        """Mean of zᵀHz at the first scale, which approximates the trace of the Hessian H.

        If it is within its standard error of 0, the root mean square, which is never smaller.
        """
        found = self.second[:, 0]
        mean, error = float(found.mean()), float(found.std()) / math.sqrt(len(found))
        return mean if mean > error else float(_rms(self.second)[0])


def best_rate(slopes: Slopes, coefficients: Sequence[Sequence[float]], signal: float) -> float:
    """The learning rate with the largest expected gain per step.

    For ĝ = Σ_k c_k z_k a step changes L by −η ĝᵀ∇L + η² ĝᵀHĝ/2, with ĝᵀ∇L ≈ √n R ‖∇B‖ √(Σ c_k²) and
    ĝᵀHĝ ≈ tr H · Σ c_k², where ∇B is the gradient of a batch and R the share of its square that
    other batches have in common. The best η is √n R ‖∇B‖ / (tr H √(Σ c_k²)); for SPSA n R / tr H.

    Args:
        slopes: the objective's slopes at the scale of the probes.
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
            f"the objective did not change for probes of eps {slopes.scales[0]:g}: use "
            "eps='auto' or larger batches, or start with a smooth surrogate"
        )
    # Without curvature, the probe's length is the only known scale of the objective.
    curvature = curvature or slope / slopes.scales[0]
    return math.sqrt(len(coefficients[0])) * signal * slope / (curvature * size)


def _rms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square over directions, for each scale."""
    mean: NDArray[np.float64] = np.sqrt(np.mean(values**2, axis=0))
    return mean
