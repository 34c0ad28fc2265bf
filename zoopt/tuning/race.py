"""A race between learning rates: trials of a third of the run at some around the expected one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

APART = 2.0
"""Ratio of neighbouring rates."""
_SHARE = 3
"""A trial is one such part of the run."""


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
    """Tries the expected rate, its double and its half, and one further out if an end is the best.

    Trials share batches and directions, so what differs is the rate, but luck is shared as well:
    where the first directions happen to point the wrong way on the examples that judge, every rate
    does worse than none, and the lowest looks best. Such a race is void.

    Args:
        expected: what measurements recommend.
        base: the objective before any step; lower is better.
        trial: gives the objective after a trial at a rate.

    Returns:
        The winner, which is the expected rate in a void race, and all laps.
    """
    laps = [_lap(rate, trial) for rate in (expected, expected * APART, expected / APART)]
    rates = [lap.lr for lap in laps]
    best = min(laps, key=_score)
    if best.lr == min(rates) or not math.isfinite(best.score):
        laps.append(_lap(min(rates) / APART, trial))
    elif best.lr == max(rates):
        laps.append(_lap(max(rates) * APART, trial))
    best = min(laps, key=_score)
    void = best.score >= base and math.isfinite(laps[0].score)
    return (laps[0] if void else best), laps


def _lap(lr: float, trial: Callable[[float], float]) -> Lap:
    lr = float(f"{lr:.3g}")
    return Lap(lr, trial(lr))


def _score(lap: Lap) -> float:
    return lap.score
