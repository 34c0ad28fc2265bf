"""A race between learning rates: short trials, the better half of which goes on each time.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943), with a field that is widened
while its highest or lowest rate is the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

FIELD = 6
"""Rates that start."""
APART = 2.0
"""Ratio of neighbouring rates."""
_WIDEN = 4
"""How often the field may be widened."""


@dataclass(frozen=True)
class Lap:
    """What a rate had reached after some steps.

    Attributes:
        lr: the learning rate.
        steps: how many steps.
        score: the objective then; lower is better, infinite where it was not finite.
    """

    lr: float
    steps: int
    score: float


Trial = Callable[[float, int], float]
"""Goes on with a rate's trial to a number of steps, and gives the score there."""


def laps_of(steps: int) -> tuple[int, ...]:
    """The steps after which the field is halved, for a run of so many steps.

    A field of six costs 13 laps of the first length together, of which the winner's 4 are the
    beginning of the run.

    >>> laps_of(130)
    (10, 20, 40)
    >>> laps_of(3)
    (1, 2, 3)
    """
    first = max(1, round(steps / 13))
    return tuple(sorted({min(first * 2**k, steps) for k in range(3)}))


def race(highest: float, steps: int, trial: Trial) -> tuple[Lap, ...]:
    """Runs trials at ``highest``, half of it, and so on.

    Returns:
        all laps in the order in which they were run, and the winner's last one again at the end.

    Raises:
        ValueError: the objective is not finite at any rate.
    """
    first, *later = laps_of(steps)
    laps = [_lap(highest / APART**k, first, trial) for k in range(FIELD)]
    for _ in range(_WIDEN):
        rates = [lap.lr for lap in laps]
        best = _best(laps)[0].lr
        if best not in (max(rates), min(rates)):
            break
        laps.append(_lap(best * APART if best == max(rates) else best / APART, first, trial))
    field = _best(laps)
    for steps_there in later:
        going_on = field[: (len(field) + 1) // 2]
        laps += (field := [_lap(each.lr, steps_there, trial) for each in going_on])
        field = _best(field)
    if not math.isfinite(field[0].score):
        rates = [lap.lr for lap in laps]
        raise ValueError(
            f"the objective is not finite after {first} steps at any learning rate from "
            f"{min(rates):g} to {max(rates):g}: check it at the model as it is"
        )
    return (*laps, field[0])


def _lap(lr: float, steps: int, trial: Trial) -> Lap:
    lr = float(f"{lr:.3g}")
    return Lap(lr, steps, trial(lr, steps))


def _best(laps: list[Lap]) -> list[Lap]:
    return sorted(laps, key=lambda lap: lap.score)
