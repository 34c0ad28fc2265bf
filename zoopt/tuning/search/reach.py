"""The distance that an update rule moves, relative to SGD at the same learning rate.

The measurements give a learning rate for SGD. Other rules rescale it: Adam divides by the
estimates' size, and momentum spreads each over many steps. The rule is therefore run on a small
tensor with such estimates, and its distance compared with SGD's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from zoopt.estimators import ZOEstimator
from zoopt.interfaces import Evaluate, GradientEstimate, UpdateRule
from zoopt.optimizer import ZOOptimizer
from zoopt.updates import SGD

_STEPS = 100
_SIDE = 16
_MOVE = 1e-6
"""Distance of an SGD step: too small to reach a bound, large enough for fp64."""


class _Given(ZOEstimator):
    """Returns given coefficients, one list per step, cyclically."""

    def __init__(self, coefficients: Sequence[Sequence[float]]) -> None:
        super().__init__(1.0, "rademacher", "inplace")
        self._coefficients, self._taken = coefficients, 0
        self.n = len(coefficients[0])

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        """Returns the next coefficients, along fresh directions."""
        given = self._coefficients[self._taken % len(self._coefficients)]
        self._taken += 1
        return GradientEstimate(tuple(seeds), tuple(given), (0.0,))


def reach(rule: UpdateRule, coefficients: Sequence[Sequence[float]]) -> float:
    """‖Σ Δθ‖ of the rule ÷ that of SGD, at the same learning rate and along the same estimates.

    Args:
        rule: the update rule, without state.
        coefficients: those of some estimates, n each.

    Example:
        >>> from zoopt.updates import Adam
        >>> round(reach(Adam(beta1=0.0), [[1e-3], [-1e-3]]))  # Adam divides by their size
        1000
    """
    size = math.sqrt(sum(c * c for each in coefficients for c in each) / len(coefficients))
    if size == 0.0:
        return 1.0
    start = 1.0 + max(0.0, getattr(rule, "low", 0.0))
    moved = []
    for each in (rule, SGD()):
        x = torch.nn.Parameter(torch.full((_SIDE, _SIDE), start, dtype=torch.float64))
        optimizer = ZOOptimizer([x], _MOVE / size, _Given(coefficients), update=each)
        for _ in range(_STEPS):
            optimizer.step(lambda: 0.0)
        moved.append(float((x.detach() - start).norm()))
    return moved[0] / moved[1]
