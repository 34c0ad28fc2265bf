"""An oracle that only compares: which of two outputs is better, and by how much nobody says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoopt.metrics import Metric, Parts

Compare = Callable[[Any, Any], Any]
"""``(a, b)`` to a number: positive where a is better, negative where b is, 0 where they tie."""


def sign(number: float) -> float:
    """-1, 0 or 1.

    >>> sign(-0.3), sign(0.0)
    (-1.0, 0.0)
    """
    return float((number > 0) - (number < 0))


def ranks(outputs: Sequence[Any], compare: Compare, group: int) -> list[float]:
    """Losses that are in the order of the outputs within each consecutive group.

    A pair costs one comparison, a group of m about m log₂ m. Outputs that tie share a rank. Where
    the comparisons contradict one another, as people's may, some order is found that agrees with
    those that were asked.

    Args:
        outputs: what the probes gave, in order.
        compare: says which of two is better.
        group: how many are compared with one another.

    Raises:
        TypeError: ``compare`` returned something else than a number.

    Example:
        >>> ranks([5, 9, 9, 1], lambda a, b: a - b, group=4)
        [2.0, 0.5, 0.5, 3.0]
        >>> ranks([5, 9, 9, 1], lambda a, b: a - b, group=2)
        [1.0, 0.0, 0.0, 1.0]
    """
    losses = [0.0] * len(outputs)

    def better_first(i: int, j: int) -> int:
        return -int(verdict(compare, outputs[i], outputs[j]))

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
    """What a comparison says of two outputs, as -1, 0 or 1.

    Raises:
        TypeError: it said something else than a number.
    """
    said = compare(a, b)
    try:
        number = float(said)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number:
        raise TypeError(
            f"compare(a, b) returned {said!r}; expected a positive number where a is better, a "
            "negative one where b is, 0 where they tie"
        )
    return sign(number)


@dataclass(frozen=True)
class Comparison(Metric):
    """An objective that only says which of two models' outputs is better.

    Its score, for reports and checkpoints, is how often what the tuned model says is preferred to
    what the base model says, ties half. Make it with :func:`comparison`.

    Attributes:
        prefers: ``(a, b, references)`` to -1, 0 or 1 for all examples of a batch at once.
    """

    prefers: Callable[[Any, Any, Any], float] = lambda a, b, references: 0.0


def comparison(
    compare: Callable[..., Any], *, needs: str = "texts", name: str | None = None
) -> Comparison:
    """An objective from a function, or a person, that says which of two outputs is better.

    A step asks which of two probes' outputs for its minibatch is better; a report asks the same of
    the tuned and the base model, example by example. It takes an estimator that only orders its
    probes, and ``zoopt.tune`` takes ``"dueling"`` if none is named.

    Args:
        compare: ``(outputs_a, outputs_b)`` to a positive number where a is better, a negative one
            where b is, 0 where they tie; or ``(outputs_a, outputs_b, references)``. Outputs are
            those of N examples.
        needs: what outputs it takes, a key of :data:`zoopt.metrics.NEEDS`.
        name: what to call it; the function's own name if not given.

    Example:
        >>> shorter = lambda a, b: sum(map(len, b)) - sum(map(len, a))
        >>> zoopt_objective = comparison(shorter, name="shorter")
        >>> zoopt_objective(["a", "bb"], Parts((["aa", "bb"], ["", ""])))
        0.75
    """
    takes_references = len(inspect.signature(compare).parameters) > 2

    def prefers(a: Any, b: Any, references: Any) -> float:
        return verdict(_with(compare, references) if takes_references else compare, a, b)

    def preferred(outputs: Any, against: Parts) -> float:
        base, references = against.items
        alone = [slice(i, i + 1) for i in range(len(outputs))]
        said = [prefers(outputs[i], base[i], references[i]) for i in alone]
        return sum((1 + each) / 2 for each in said) / len(said)

    preferred.__doc__ = (compare.__doc__ or "Which of two outputs is better.").strip()
    title = name or str(getattr(compare, "__name__", type(compare).__name__))
    return Comparison(title, preferred, True, needs, (0, 1), True, from_base=True, prefers=prefers)


def _with(compare: Callable[..., Any], references: Any) -> Compare:
    return lambda a, b: compare(a, b, references)
