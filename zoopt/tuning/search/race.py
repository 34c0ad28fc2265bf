"""A race between learning rates: trials of a third of the run at some around the expected one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

APART = 2.0
"""Ratio of neighbouring rates."""
_MOST = 4
"""Trials in a race."""
_SHARE = 3
"""A trial is one such part of the run."""
_FAR = 0.1
"""By which share of its size the objective may get worse by the accident of a few steps."""


@dataclass(frozen=True)
class Lap:
    """What a rate had reached.

    Attributes:
        lr: the learning rate.
        score: the objective then; lower is better, infinite where it was not finite.
    """

    lr: float
    score: float


def length_of(steps: int) -> int:
    """The steps of a trial for a run of so many.

    >>> length_of(80), length_of(1)
    (27, 1)
    """
    return max(1, round(steps / _SHARE))


def race(expected: float, base: float, trial: Callable[[float], float]) -> tuple[Lap, list[Lap]]:
    """Climbs from the expected rate to the best one, after falling to where a rate is any good.

    As long as none did better than no step at all, a quarter of the lowest is tried; then the
    double of the best and its half; and when both have been, what is halfway to the double, since a
    short run gains the more the higher the rate is, up to where it diverges.

    Trials share batches and directions, so what differs is the rate, but luck is shared as well:
    where the first directions happen to point the wrong way on the examples that judge, every rate
    does worse than none, and the lowest looks best. Such a race is void.

    Args:
        expected: what measurements recommend.
        base: the objective before any step; lower is better.
        trial: gives the objective after a trial at a rate.

    Returns:
        The winner, and all laps. In a void race the winner is the highest of the rates that made
        the objective little worse.

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
    """The rate to try after these laps."""
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
