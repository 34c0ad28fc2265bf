"""A race between learning rates: trials of a third of the run at rates around the expected one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

APART = 2.0
"""Ratio of neighbouring rates."""
_MOST = 4
"""Trials in a race."""
_SHARE = 3
"""A trial has 1/_SHARE of the run's steps."""
_FAR = 0.1
"""Relative loss of the objective that still counts as noise of a few steps."""


@dataclass(frozen=True)
class Lap:
    """The outcome of a trial.

    Attributes:
        lr: the learning rate.
        score: the objective at the end; lower is better, infinite if it was not finite.
    """

    lr: float
    score: float


def length_of(steps: int) -> int:
    """The number of steps of a trial, given those of the run.

    >>> length_of(80), length_of(1)
    (27, 1)
    """
    return max(1, round(steps / _SHARE))


def race(expected: float, base: float, trial: Callable[[float], float]) -> tuple[Lap, list[Lap]]:
    """Searches for the best learning rate, starting from the expected one.

    While no rate has improved on the base score, a quarter of the lowest is tried next; then twice
    the best, half the best, and finally √2 times the best, since a short run gains more at a higher
    rate, up to where it diverges.

    Trials share batches and directions, so that they differ in the rate only. If the first
    directions happen to be bad on the scoring batches, every rate does worse than the base, and the
    lowest looks best. Such a race is void.

    Args:
        expected: the rate that the measurements recommend.
        base: the objective before any step; lower is better.
        trial: returns the objective after a trial at a rate.

    Returns:
        The winner, and all laps. In a void race the winner is the highest rate that made the
        objective at most 10 % worse, or else the lowest.

    Example:
        >>> best, laps = race(1.0, 0.0, lambda lr: (lr - 0.2) ** 2 - 0.04)
        >>> best.lr, [lap.lr for lap in laps]
        (0.25, [1.0, 0.25, 0.5, 0.125])
    """
    laps: list[Lap] = []
    rate = expected
    while len(laps) < _MOST:
        rate = float(f"{rate:.3g}")
        laps.append(Lap(rate, trial(rate)))
        rate = _next(base, laps)
    best = min(laps, key=_score)
    if best.score < base:
        return best, laps
    harmless = [lap for lap in laps if lap.score <= base + _FAR * abs(base)]
    return max(harmless, key=_rate) if harmless else min(laps, key=_rate), laps


def _next(base: float, laps: Sequence[Lap]) -> float:
    """The rate to try next."""
    best = min(laps, key=_score)
    if best.score >= base:
        return min(lap.lr for lap in laps) / APART**2
    for rate in (best.lr * APART, best.lr / APART):
        if not any(abs(math.log(lap.lr / rate)) < math.log(APART) / 2 for lap in laps):
            return rate
    return best.lr * math.sqrt(APART)


def _rate(lap: Lap) -> float:
    return lap.lr


def _score(lap: Lap) -> float:
    return lap.score
