"""Probes that are only compared: their outputs' ranks are used as losses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from zoopt.seeds import fold

Compare = Callable[[Any, Any], Any]
"""``(a, b)`` to a number: positive if a is better, negative if b is, 0 for a tie;
or to a bool, whether a is better, without ties."""


def sign(number: float) -> float:
    """-1, 0 or 1.

    >>> sign(-0.3), sign(0.0)
    (-1.0, 0.0)
    """
    return float((number > 0) - (number < 0))


def ranks(outputs: Sequence[Any], compare: Compare, group: int, seed: int = 0) -> list[float]:
    """The ranks of the outputs within each consecutive group, as losses.

    A pair takes one comparison, a group of m about m log₂ m, and no two outputs are compared twice.
    Tied outputs share a rank. If the comparisons contradict one another, as people's may, the order
    is the one that sorting by the requested comparisons gives.

    Args:
        outputs: the probes' outputs, in order.
        compare: decides which of two is better.
        group: number of consecutive outputs that are compared with one another.
        seed: decides which of two is ``compare``'s first, because people prefer the first one.

    Raises:
        TypeError: ``compare`` did not return a number.

    Example:
        >>> ranks([5, 9, 9, 1], lambda a, b: a - b, group=4)
        [2.0, 0.5, 0.5, 3.0]
        >>> ranks([5, 9, 9, 1], lambda a, b: a - b, group=2)
        [1.0, 0.0, 0.0, 1.0]
    """
    losses = [0.0] * len(outputs)

    @functools.cache
    def asked(i: int, j: int) -> float:
        if fold(seed, i, j) & 1:
            return -verdict(compare, outputs[j], outputs[i])
        return verdict(compare, outputs[i], outputs[j])

    def better_first(i: int, j: int) -> int:
        return int(-asked(i, j) if i < j else asked(j, i))

    for start in range(0, len(outputs), group):
        members = range(start, min(start + group, len(outputs)))
        order = sorted(members, key=functools.cmp_to_key(better_first))
        tied: list[list[int]] = []
        for i in order:
            if tied and better_first(tied[-1][-1], i) == 0:
                tied[-1].append(i)
            else:
                tied.append([i])
        above = 0
        for place in tied:
            for i in place:
                losses[i] = above + (len(place) - 1) / 2
            above += len(place)
    return losses


def verdict(compare: Compare, a: Any, b: Any) -> float:
    """The result of comparing two outputs, as -1, 0 or 1.

    Raises:
        TypeError: ``compare`` did not return a number.

    Example:
        >>> verdict(lambda a, b: a - b, 2, 5), verdict(lambda a, b: a > b, 2, 5)
        (-1.0, -1.0)
    """
    said = compare(a, b)
    try:
        number = float(said)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number:
        raise TypeError(
            f"compare(a, b) returned {said!r}; expected a positive number if a is better, a "
            "negative one if b is better, 0 for a tie"
        )
    return sign(number - 0.5 if _is_bool(said) else number)


def _is_bool(said: Any) -> bool:
    """Whether a number is a bool of Python, NumPy or torch."""
    return isinstance(said, bool) or str(getattr(said, "dtype", "")) in ("bool", "torch.bool")
