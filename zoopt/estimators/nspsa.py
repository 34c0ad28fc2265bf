"""n-SPSA: SPSA averaged over n directions (arXiv 2305.17333, definition 1 and appendix A.2)."""

from __future__ import annotations

from collections.abc import Sequence

from zoopt.estimators.base import ZOEstimator
from zoopt.estimators.spsa import SPSA
from zoopt.interfaces import Direction, Evaluate, GradientEstimate


class NSPSA(SPSA):
    """ĝ = (1/n) Σ_k c_k z_k over n independent directions, applied in one multi-seed update.

    2n evaluations per step for a variance smaller by n. At equal numbers of forwards n is about
    neutral in the MeZO paper, whose rule is lr ∝ n; a larger n allows a larger stable lr and
    batched probes.

    Args:
        eps: the perturbation scale ε.
        n: directions per step.
        direction: the family of z.
        engine: how probes are evaluated.
        clip: bound on each |c_k|, against rare, far too long steps; None for no bound.
    """

    def __init__(
        self,
        eps: float = 1e-3,
        n: int = 4,
        direction: str | Direction = "gaussian",
        engine: str = "auto",
        clip: float | None = None,
    ) -> None:
        ZOEstimator.__init__(self, eps, direction, engine, n)
        if clip is not None and not clip > 0:
            raise ValueError(f"clip={clip} must be positive: it bounds the projected gradient")
        self.clip = clip

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """The mean of c z over the seeds; see the class."""
        bound = None if self.clip is None else self.clip / len(seeds)
        return super().estimate(evaluate, seeds, eps).clipped(bound)
