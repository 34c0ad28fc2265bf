"""An estimate whose losses become known one by one, in any order."""

from __future__ import annotations

from collections.abc import Sequence

from zoopt.estimators.base import ZOEstimator
from zoopt.interfaces import GradientEstimate, Probe


class PendingEstimate:
    """Turns an estimator inside out: probes are asked for, and their losses told later.

    An estimate depends on its losses alone (the contract in :mod:`zoopt.testing`), so the estimator
    is run with the losses known so far: it either requests more probes, or returns the estimate.

    Args:
        estimator: the estimator.
        seeds: the seeds of the step's n directions.
        eps: the perturbation scale ε.

    Attributes:
        probes: the probes requested so far.
        waiting: the numbers of those whose loss is not known.
        result: the estimate, once all its losses are known.

    Example:
        >>> import zoopt
        >>> pending = PendingEstimate(zoopt.SPSA(), seeds=[7], eps=0.1)
        >>> pending.waiting
        [0, 1]
        >>> pending.tell(1, 2.0)
        >>> pending.tell(0, 3.0)
        >>> pending.result.coefficients
        (5.0,)
    """

    def __init__(self, estimator: ZOEstimator, seeds: Sequence[int], eps: float) -> None:
        self._estimator, self._seeds, self._eps = estimator, seeds, eps
        self._losses: dict[int, float] = {}
        self.probes: list[Probe] = []
        self.waiting: list[int] = []
        self.result: GradientEstimate | None = None
        self._advance()

    def ask(self) -> int:
        """The number of a probe whose loss is not known; it comes again after all others."""
        number = self.waiting.pop(0)
        self.waiting.append(number)
        return number

    def tell(self, number: int, loss: float) -> None:
        """Adds the loss of a probe; ignored if it is known already."""
        if number in self._losses:
            return
        self._losses[number] = loss
        self.waiting.remove(number)
        if not self.waiting:
            self._advance()

    def _advance(self) -> None:
        known = 0

        def evaluate(probes: Sequence[Probe]) -> list[float]:
            nonlocal known
            first, known = known, known + len(probes)
            if known > len(self._losses):
                raise _UnknownLosses(probes)
            return [self._losses[number] for number in range(first, known)]

        try:
            self.result = self._estimator.estimate(evaluate, self._seeds, self._eps)
        except _UnknownLosses as asked:
            self.waiting = list(range(len(self.probes), len(self.probes) + len(asked.probes)))
            self.probes += asked.probes


class _UnknownLosses(Exception):
    """An estimator requested probes whose losses are not known yet."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self.probes = probes
