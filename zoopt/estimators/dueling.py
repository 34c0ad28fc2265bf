"""Dueling SPSA: uses only which probe of each pair is better."""

from __future__ import annotations

from collections.abc import Sequence

from zoopt.estimators.base import ZOEstimator
from zoopt.interfaces import Direction, Evaluate, GradientEstimate, Probe
from zoopt.probes.ranks import sign


class Dueling(ZOEstimator):
    """ĝ = (1/n) Σ_k sign(L(θ + εz_k) − L(θ − εz_k)) z_k: SPSA from the sign of the difference.

    2n evaluations per step. The length of ĝ does not depend on the slope: for a linear L and
    Gaussian z, E[ĝ] = √(2/π) ∇L/‖∇L‖, so lr alone sets the step length. It works with an oracle
    that only compares (``ZOOptimizer.step(closure, compare=...)``), and with losses whose order is
    reliable but not their differences. Yue and Joachims 2009, "Interactively optimizing information
    retrieval systems as a dueling bandits problem", with both sides probed.

    Example:
        >>> import torch, zoopt
        >>> x = torch.nn.Parameter(torch.zeros(2))
        >>> taste = lambda a, b: (a > 3) - (b > 3) or (a > b) - (a < b)  # stands for a person
        >>> opt = zoopt.ZOOptimizer([x], lr=0.05, estimator=zoopt.Dueling(eps=0.1), seed=0)
        >>> for _ in range(100):
        ...     value = opt.step(lambda: x.sum().item(), compare=taste)
        >>> x.sum().item() > 3
        True
    """

    compares = 2

    def __init__(
        self,
        eps: float = 1e-3,
        n: int = 1,
        direction: str | Direction = "gaussian",
        engine: str = "auto",
    ) -> None:
        super().__init__(eps, direction, engine, n)

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """The mean of sign · z over the seeds; see the class."""
        probes = [Probe(((seed, side * eps),)) for seed in seeds for side in (+1, -1)]
        losses = evaluate(probes)
        coefficients = [
            sign(plus - minus) / len(seeds)
            for plus, minus in zip(losses[::2], losses[1::2], strict=True)
        ]
        return GradientEstimate(tuple(seeds), tuple(coefficients), tuple(losses))
