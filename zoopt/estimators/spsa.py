"""SPSA: simultaneous perturbation stochastic approximation, two-sided.

J. C. Spall 1992, "Multivariate stochastic approximation using a simultaneous perturbation gradient
approximation", IEEE TAC 37(3).
"""

from __future__ import annotations

from collections.abc import Sequence

from zoopt.estimators.base import ZOEstimator
from zoopt.interfaces import Direction, Evaluate, GradientEstimate, Probe


class SPSA(ZOEstimator):
    """ĝ = c z with the projected gradient c = (L(θ + εz) − L(θ − εz)) / 2ε.

    Two evaluations per step. E[ĝ] = ∇L + O(ε²); for a quadratic L the difference is exact along z.
    With its default ``engine="copy"`` this is the readable reference for :func:`zoopt.MeZO`, which
    computes the same in place.

    Example:
        >>> import torch, zoopt
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> spsa = zoopt.SPSA(eps=1e-2, direction="rademacher")
        >>> optimizer = zoopt.ZOOptimizer([x], lr=0.1, estimator=spsa, seed=0)
        >>> for _ in range(100):
        ...     value = optimizer.step(lambda: (x**2).sum())
        >>> bool((x.abs() < 1e-3).all())
        True
    """

    def __init__(
        self, eps: float = 1e-3, direction: str | Direction = "gaussian", engine: str = "copy"
    ) -> None:
        super().__init__(eps, direction, engine)

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """The mean of c z over the seeds; see the class."""
        probes = [Probe(((seed, side * eps),)) for seed in seeds for side in (+1, -1)]
        losses = evaluate(probes)
        coefficients = [
            (plus - minus) / (2 * eps) / len(seeds)
            for plus, minus in zip(losses[::2], losses[1::2], strict=True)
        ]
        return GradientEstimate(tuple(seeds), tuple(coefficients), tuple(losses))
