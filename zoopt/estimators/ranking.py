"""Ranking: n probes are ranked, and only their order is used (ZO-RankSGD)."""

from __future__ import annotations

from collections.abc import Sequence

from zoopt.estimators.base import ZOEstimator
from zoopt.interfaces import Direction, Evaluate, GradientEstimate, Probe
from zoopt.probes.ranks import sign


class Ranking(ZOEstimator):
    """ĝ = (1/|E|) Σ_(i,j) (z_j − z_i) over the pairs E in which probe i was ranked above probe j.

    n evaluations per step, at θ + εz_k. Tied pairs contribute 0 to the sum, but count in
    |E| = n(n − 1)/2. For a linear L and Gaussian z, E[ĝ] = (2/√π) ∇L/‖∇L‖ for any n, and its
    variance falls with n. Tang, Rybin and Chang 2023, "Zeroth-order optimization meets human
    feedback: provable learning via ranking oracles" (arXiv 2303.03751), with all n ranked.

    Example:
        >>> import torch, zoopt
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> opt = zoopt.ZOOptimizer([x], lr=0.05, estimator=zoopt.Ranking(eps=0.1, n=8), seed=0)
        >>> for _ in range(100):
        ...     value = opt.step(lambda: (x**2).sum())
        >>> bool(x.norm() < 0.3)
        True
    """

    def __init__(
        self,
        eps: float = 1e-3,
        n: int = 4,
        direction: str | Direction = "gaussian",
        engine: str = "auto",
    ) -> None:
        if n < 2:
            raise ValueError(f"n={n} probes: a ranking needs at least two")
        super().__init__(eps, direction, engine, n)

    @property
    def compares(self) -> int:  # type: ignore[override]
        """All n probes of a step."""
        return self.n

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """Σ z_k times (probes that probe k is worse than − probes that it beats), over |E|."""
        losses = evaluate([Probe(((seed, eps),)) for seed in seeds])
        pairs = len(seeds) * (len(seeds) - 1) / 2
        coefficients = [sum(sign(mine - other) for other in losses) / pairs for mine in losses]
        return GradientEstimate(tuple(seeds), tuple(coefficients), tuple(losses))
