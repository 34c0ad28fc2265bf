"""Dueling SPSA: of each pair of probes only the better one is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from zoopt.estimators.base import ZOEstimator
from zoopt.interfaces import Direction, Evaluate, GradientEstimate, Probe
from zoopt.probes.ranks import sign


class Dueling(ZOEstimator):
    """ĝ = (1/n) Σ_k sign(L(θ + εz_k) − L(θ − εz_k)) z_k: SPSA told which is better, not how much.

    2n evaluations a step. The length of ĝ says nothing of the slope: for a linear L and Gaussian z
    it is E[ĝ] = √(2/π) ∇L/‖∇L‖, so lr alone sets the step. It takes an oracle that only compares
    (``ZOOptimizer.step(closure, compare=...)``), and losses of which only the order can be trusted.
    Yue and Joachims 2009, "Interactively optimizing information retrieval systems as a dueling
    bandits problem", with both sides probed.

    Example:
        >>> import torch, zoopt
        >>> x = torch.nn.Parameter(torch.zeros(2))
        >>> taste = lambda a, b: (a > 3) - (b > 3) or (a > b) - (a < b)  # a person, say
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
