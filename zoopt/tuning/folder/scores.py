"""Which development score is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping


def best_of(scores: Mapping[int, float | None], higher_is_better: bool) -> int | None:
    """The step of the best score: the earliest if tied, the last step if there are no scores.

    A score that is not finite is the worst.

    Args:
        scores: by step; all None without development examples.
        higher_is_better: whether higher scores are better.

    Example:
        >>> best_of({0: 0.5, 10: 0.7, 20: 0.7, 30: math.nan}, higher_is_better=True)
        10
        >>> best_of({0: None, 10: None}, higher_is_better=True)
        10
    """
    worth = {
        step: _worth(score, higher_is_better) for step, score in scores.items() if score is not None
    }
    if not worth:
        return max(scores, default=None)
    return min(worth, key=lambda step: (-worth[step], step))


def _worth(score: float, higher_is_better: bool) -> float:
    """A score as a number to be maximized."""
    if not math.isfinite(score):
        return -math.inf
    return score if higher_is_better else -score
