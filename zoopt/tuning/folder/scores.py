"""Development scores: which of two is better."""

from __future__ import annotations

import math


def worth(score: float, higher_is_better: bool) -> float:
    """A score as a number to be maximized. One that is not finite is worth least.

    >>> worth(0.5, True), worth(0.5, False), worth(math.nan, True)
    (0.5, -0.5, -inf)
    """
    if not math.isfinite(score):
        return -math.inf
    return score if higher_is_better else -score
