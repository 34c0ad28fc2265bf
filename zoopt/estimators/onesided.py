"""One-sided differences with normalised steps (FZOO, arXiv 2506.09034)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from zoopt.estimators.base import ZOEstimator
from zoopt.interfaces import Direction, Evaluate, GradientEstimate, Probe


class OneSided(ZOEstimator):
    """ĝ = (1/nσ) Σ_k (L(θ + εz_k) − L(θ)) z_k, where σ is the standard deviation of the n losses.

    n + 1 evaluations per step. Where the slope dominates the losses' differences, σ is about
    ε‖∇L‖, so ĝ is a normalised gradient: the step's length depends on lr and not on the slope, and
    is shorter where losses vary more. If all n losses are equal, ĝ = 0. FZOO's settings for
    OPT-13B: n=8, Rademacher, eps 1e-4, lr 5e-5.

    The step is unbounded where curvature outweighs the slope, ε tr ∇²L ≫ ‖∇L‖, as near a minimum:
    every probe is then worse than θ by about ½ε² tr ∇²L, which is divided by a σ that goes to 0.
    Such a long step leaves the minimum. A smaller ``eps`` delays this; otherwise stop earlier, at
    the best evaluation.

    Example:
        >>> import torch, zoopt
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> fzoo = zoopt.OneSided(eps=1e-3, n=8)
        >>> opt = zoopt.ZOOptimizer([x], lr=0.05, estimator=fzoo, seed=0)
        >>> for _ in range(200):
        ...     value = opt.step(lambda: (x**2).sum())
        >>> bool(x.norm() < 0.3)
        True
    """

    def __init__(
        self,
        eps: float = 1e-3,
        n: int = 8,
        direction: str | Direction = "rademacher",
        engine: str = "auto",
    ) -> None:
        if n < 2:
            raise ValueError(f"n={n} probes: their standard deviation needs at least two")
        super().__init__(eps, direction, engine, n)

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """The normalised mean of difference · z over the seeds; see the class."""
        losses = evaluate([Probe(()), *(Probe(((seed, eps),)) for seed in seeds)])
        base, probed = losses[0], losses[1:]
        spread = statistics.stdev(probed)
        scale = 1.0 / (len(seeds) * spread) if spread > 0 else 0.0
        coefficients = tuple((loss - base) * scale for loss in probed)
        return GradientEstimate(tuple(seeds), coefficients, tuple(losses))
