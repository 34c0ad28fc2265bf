"""Comparison of development scores."""

from __future__ import annotations

import math


def worth(score: float, higher_is_better: bool) -> float:
    """Converts a score to a number to be maximized; -inf if it is not finite.

    >>> worth(0.5, True), worth(0.5, False), worth(math.nan, True)
    (0.5, -0.5, -inf)
    """
    if not math.isfinite(score):
        return -math.inf
    return score if higher_is_better else -score
