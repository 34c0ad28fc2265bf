"""The guard against divergence: cuts spikes of the estimate, and says when a run is lost.

>>> guard = Guard(clip=10.0)
>>> for loss in [1.0, 1.1, 0.9] * 4 + [3.0] * 20:
...     guard.see((0.2, -0.2), (loss, loss))
>>> guard.bound, guard.trouble()
(2.0, 'the objective went from 1 to 3')
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from zoopt.optimizer import ZOOptimizer
from zoopt.records import StepRecord

WINDOW = 10
"""Steps whose median is looked at."""
_MEMORY = 50
"""Coefficients over which the running scale is taken."""
_FAR = 5.0
"""Standard deviations above the start that are no accident."""
_TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation."""


class Guard:
    """Watches a run's losses and coefficients. All it knows follows from the run's log.

    Args:
        clip: how many times the median of the last coefficients' sizes a coefficient may have; 0
            leaves all as they are.
    """

    def __init__(self, clip: float) -> None:
        self._clip = clip
        self._sizes: list[float] = []
        self._losses: list[float] = []

    def see(self, coefficients: Sequence[float], losses: Sequence[float]) -> None:
        """A step was made with these coefficients, from these losses (lower is better)."""
        self._sizes = [*self._sizes, *(abs(c) for c in coefficients if c)][-_MEMORY:]
        self._losses.append(sum(losses) / len(losses))

    @property
    def bound(self) -> float | None:
        """What the next step's coefficients are cut to; None while too little is known."""
        if not self._clip or len(self._sizes) < WINDOW:
            return None
        return self._clip * median(self._sizes)

    def trouble(self) -> str | None:
        """Says that the objective is far worse than in the first steps; None where it is not.

        The median of the last steps is compared with that of the first, whose spread (and a
        twentieth of their size, where batches are all alike) says what is far.
        """
        if len(self._losses) < 2 * WINDOW:
            return None
        first, last = self._losses[:WINDOW], median(self._losses[-WINDOW:])
        start = median(first)
        spread = _TO_DEVIATION * median([abs(loss - start) for loss in first])
        if last <= start + _FAR * max(spread, 0.05 * abs(start)):
            return None
        return f"the objective went from {abs(start):.3g} to {abs(last):.3g}"

    def follow(self, records: Iterable[StepRecord], optimizer: ZOOptimizer) -> None:
        """Begins anew, and sees all that a log records."""
        self._sizes, self._losses = [], []
        for record in records:
            losses = list(record.losses)
            again = optimizer.estimator.estimate(
                lambda probes, said=losses: said,  # type: ignore[misc]
                record.seeds,
                record.eps[0],
            )
            self.see(again.clipped(record.clip).coefficients, losses)
