"""Divergence guard: clips spikes of the gradient estimate and detects a diverged run.

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
"""Steps over which the median loss is taken."""
_MEMORY = 50
"""Coefficients over which the running median is taken."""
_FAR, _NEAR = 5.0, 1.0
"""Standard deviations above the start that count as diverged, and that are within noise."""
_TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation."""


class Guard:
    """Monitors a run's losses and coefficients; its state can be rebuilt from the run's log.

    Args:
        clip: clip coefficients at this multiple of the running median of |c|; 0 disables clipping.
        surrogate_steps: initial steps to ignore, whose losses include a surrogate objective.
        maximize: whether the objective is higher-is-better. Its losses are the negative of it, so
            this changes only the sign of the numbers that :meth:`trouble` names.
    """

    def __init__(self, clip: float, surrogate_steps: int = 0, maximize: bool = False) -> None:
        self._clip, self._surrogate_steps = clip, surrogate_steps
        self._sign = -1.0 if maximize else 1.0
        self._sizes: list[float] = []
        self._losses: list[float] = []
        self._steps = self._fresh = self._well = 0
        self._lowest = math.inf

    def see(self, estimate: GradientEstimate | None) -> None:
        """Records the estimate of a step; ignores None."""
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
        """The clipping bound of the next step; None during the first steps."""
        if not self._clip or len(self._sizes) < WINDOW:
            return None
        return self._clip * median(self._sizes)

    @property
    def sound(self) -> int:
        """The latest step at which the run was certainly not yet diverging.

        This is two windows back, or one window before the last step about as good as the best so
        far if that is earlier, since slow divergence is detected late.
        """
        return max(0, min(self._steps - 2 * WINDOW, self._well - WINDOW))

    def trouble(self) -> str:
        """Describes by how much the objective got worse than at the start; "" if the run is sound.

        The median of the last steps is compared with that of the first, relative to the spread of
        the first (at least 5 % of their median, in case all batches are alike). After a rollback
        the run is checked again once a full window of steps was made.
        """
        if len(self._losses) < 2 * WINDOW or self._fresh < WINDOW:
            return ""
        start, last = median(self._losses[:WINDOW]), median(self._losses[-WINDOW:])
        if self._within(_FAR, start):
            return ""
        then, now = (self._sign * loss + 0.0 for loss in (start, last))  # and no -0
        return f"the objective went from {then:.3g} to {now:.3g}"

    def _within(self, deviations: float, level: float) -> bool:
        """Whether the median of the last steps is within this many deviations above a level."""
        if len(self._losses) < WINDOW:
            return True
        first, last = self._losses[:WINDOW], median(self._losses[-WINDOW:])
        start = median(first)
        spread = _TO_DEVIATION * median([abs(loss - start) for loss in first])
        if start == spread == 0:
            return True  # a reward that is still 0 everywhere has no scale to compare with
        return last <= level + deviations * max(spread, 0.05 * abs(start))

    def follow(self, records: Sequence[StepRecord], since: int, estimator: ZOEstimator) -> None:
        """Resets the guard and replays the steps of a log.

        Args:
            records: the steps that were not rolled back.
            since: the step to which the run was last rolled back; 0 without rollbacks.
            estimator: the run's estimator.
        """
        self._sizes, self._losses, self._steps, self._well = [], [], 0, 0
        self._lowest = math.inf
        for record in records:
            estimate = estimator.from_losses(record.losses, record.seeds, record.eps[0])
            self.see(estimate.clipped(record.clip))
        self._fresh = len(records) - since
