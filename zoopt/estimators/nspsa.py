"""n-SPSA: SPSA averaged over n directions (arXiv 2305.17333, definition 1 and appendix A.2)."""

from __future__ import annotations

from zoopt.estimators.base import ZOEstimator
from zoopt.estimators.spsa import SPSA
from zoopt.interfaces import Direction


class NSPSA(SPSA):
    """ĝ = (1/n) Σ_k c_k z_k over n independent directions, applied in one multi-seed update.

    2n evaluations a step for a variance smaller by n. At equal forwards n is about neutral in the
    MeZO paper, whose rule is lr ∝ n; what n buys is a larger stable lr and batched probes.
    """

    def __init__(
        self,
        eps: float = 1e-3,
        n: int = 4,
        direction: str | Direction = "gaussian",
        engine: str = "auto",
    ) -> None:
        ZOEstimator.__init__(self, eps, direction, engine, n)
