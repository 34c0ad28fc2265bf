"""Objectives from an oracle that says which of two outputs is better, but not by how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import numpy as np

from zoopt.objectives.conventions.reading import must_bind, parameters, positional
from zoopt.objectives.metric import Metric, Parts
from zoopt.probes.ranks import verdict


@dataclass(frozen=True)
class Comparison(Metric):
    """An objective that only says which of two models' outputs is better.

    Its score, for reports and checkpoints, is the share of examples in which the tuned model's
    output is preferred to the base model's; ties count half. Create it with :func:`comparison`.

    Attributes:
        prefers: ``(a, b, references)`` to -1, 0 or 1 for all examples of a batch together.
    """

    prefers: Callable[[Any, Any, Any], float] = lambda a, b, references: 0.0


def comparison(
    compare: Callable[..., Any], *, needs: str = "texts", name: str | None = None
) -> Comparison:
    """An objective from a function, or a person, that says which of two outputs is better.

    Each step compares the outputs of its probes on the minibatch; the report compares the tuned
    with the base model, example by example. Equal outputs tie without a call; otherwise the order
    of a and b varies, because people and judges favour one side. It requires an estimator that uses
    only the order of its probes; ``zoopt.tune`` selects ``"dueling"`` unless another is named.

    Args:
        compare: ``(outputs_a, outputs_b)`` to a positive number if a is better, a negative one if b
            is better, 0 for a tie; or to a bool, whether a is better. Outputs are those of N
            examples. It also gets the N references if it requires a third argument, or has one
            named ``references``.
        needs: the form of outputs that it takes, a key of :data:`zoopt.objectives.forms.FORMS`.
        name: the objective's name; the function's own name if not given.

    Raises:
        TypeError: it cannot be called with these arguments.

    Example:
        >>> shorter = lambda a, b: sum(map(len, b)) - sum(map(len, a))
        >>> zoopt_objective = comparison(shorter, name="shorter")
        >>> zoopt_objective(["a", "bb"], Parts((["aa", "bb"], ["", ""])))
        0.75
    """
    judge = _with_references(compare)

    def prefers(a: Any, b: Any, references: Any) -> float:
        if np.array_equal(a, b):
            return 0.0
        return verdict(lambda a, b: judge(a, b, references), a, b)

    def each(outputs: Any, against: Parts) -> list[float]:
        base, references = against.items
        shares = []
        for i in range(len(outputs)):
            one = slice(i, i + 1)
            if i % 2:
                said = -prefers(base[one], outputs[one], references[one])
            else:
                said = prefers(outputs[one], base[one], references[one])
            shares.append((1 + said) / 2)
        return shares

    def preferred(outputs: Any, against: Parts) -> float:
        return sum(each(outputs, against)) / len(outputs)

    preferred.__doc__ = (compare.__doc__ or "Which of two outputs is better.").strip()
    title = name or str(getattr(compare, "__name__", type(compare).__name__))
    return Comparison(
        title,
        preferred,
        True,
        needs,
        (0, 1),
        True,
        from_base=True,
        each=each,
        source=compare,
        prefers=prefers,
    )


def _with_references(compare: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    """A comparison as a function of (a, b, references), even if it takes no references."""
    takes = parameters(compare)
    if "references" in takes:
        return lambda a, b, references: compare(a, b, references=references)
    required = [name for name in positional(compare) if takes[name].default is Parameter.empty]
    if len(required) > 2:
        must_bind(compare, 3)
        return compare
    must_bind(compare, 2)
    return lambda a, b, references: compare(a, b)
