"""The guard against divergence: cuts spikes of the estimate, and says when a run is lost.

>>> guard = Guard(clip=10.0)
>>> for loss in [1.0, 1.1, 0.9] * 4 + [3.0] * 20:
...     guard.see(GradientEstimate((1, 2), (0.2, -0.2), (loss, loss)))
>>> guard.bound, guard.trouble()
(2.0, 'the objective went from 1 to 3')
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from zoopt.estimators import ZOEstimator
from zoopt.interfaces import GradientEstimate, StepRecord

WINDOW = 10
"""Steps whose median is looked at."""
_MEMORY = 50
"""Coefficients over which the running scale is taken."""
_FAR, _NEAR = 5.0, 1.0
"""Standard deviations above the start that are no accident, and that say nothing yet."""
_TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation."""


class Guard:
    """Watches a run's losses and coefficients. All it knows follows from the run's log.

    Args:
        clip: how many times the median of the last coefficients' sizes a coefficient may have; 0
            leaves all as they are.
        surrogate_steps: steps at the beginning whose losses are partly of another objective, and
            are not compared.
        maximize: whether the objective is higher-is-better, of which losses are the negative.
    """

    def __init__(self, clip: float, surrogate_steps: int = 0, maximize: bool = False) -> None:
        self._clip, self._surrogate_steps = clip, surrogate_steps
        self._sign = -1.0 if maximize else 1.0
        self._sizes: list[float] = []
        self._losses: list[float] = []
        self._steps = self._fresh = self._well = 0
        self._lowest = math.inf

    def see(self, estimate: GradientEstimate | None) -> None:
        """A step was made along this estimate; none was, if it is None."""
        if estimate is None:
            return
        self._sizes = [*self._sizes, *(abs(c) for c in estimate.coefficients if c)][-_MEMORY:]
        if self._steps >= self._surrogate_steps:
            self._losses.append(sum(estimate.losses) / len(estimate.losses))
        self._steps += 1
        self._fresh += 1
        if len(self._losses) >= WINDOW:
            self._lowest = min(self._lowest, median(self._losses[-WINDOW:]))
        if self._within(_NEAR, self._lowest):
            self._well = self._steps

    @property
    def bound(self) -> float | None:
        """What the next step's coefficients are cut to; None while too little is known."""
        if not self._clip or len(self._sizes) < WINDOW:
            return None
        return self._clip * median(self._sizes)

    @property
    def sound(self) -> int:
        """The step from before which the run was certainly not getting worse.

        Two windows back, or before the last steps that were about as good as the best so far: what
        grows slowly is noticed late.
        """
        return max(0, min(self._steps - 2 * WINDOW, self._well - WINDOW))

    def trouble(self) -> str:
        """Says that the objective is far worse than in the first steps; empty where it is not.

        The median of the last steps is compared with that of the first, whose spread (and a
        twentieth of their size, where batches are all alike) says what is far. After going back a
        run has as many steps again before it is judged.
        """
        if len(self._losses) < 2 * WINDOW or self._fresh < WINDOW:
            return ""
        start, last = median(self._losses[:WINDOW]), median(self._losses[-WINDOW:])
        if self._within(_FAR, start):
            return ""
        then, now = (self._sign * loss + 0.0 for loss in (start, last))  # and no -0
        return f"the objective went from {then:.3g} to {now:.3g}"

    def _within(self, deviations: float, level: float) -> bool:
        """Whether the last steps are at most so many deviations of the first above a level."""
        if len(self._losses) < WINDOW:
            return True
        first, last = self._losses[:WINDOW], median(self._losses[-WINDOW:])
        start = median(first)
        spread = _TO_DEVIATION * median([abs(loss - start) for loss in first])
        if start == spread == 0:
            return True  # a reward that nothing has earned yet says nothing of what is far
        return last <= level + deviations * max(spread, 0.05 * abs(start))

    def follow(self, records: Sequence[StepRecord], since: int, estimator: ZOEstimator) -> None:
        """Begins anew, and sees all that a log records.

        Args:
            records: the steps that count.
            since: the step that the run last went back to; 0 if it never did.
            estimator: the run's.
        """
        self._sizes, self._losses, self._steps, self._well = [], [], 0, 0
        self._lowest = math.inf
        for record in records:
            estimate = estimator.from_losses(record.losses, record.seeds, record.eps[0])
            self.see(estimate.clipped(record.clip))
        self._fresh = len(records) - since
