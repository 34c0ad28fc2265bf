"""Objectives from an oracle that only ranks outputs: which is better, not by how much."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoopt.objectives.metric import Metric, Parts
from zoopt.probes.ranks import Compare, verdict


@dataclass(frozen=True)
class Comparison(Metric):
    """An objective that only says which of two models' outputs is better.

    Its score, for reports and checkpoints, is how often the tuned model's output is preferred to
    the base model's, ties counting half. Make it with :func:`comparison`.

    Attributes:
        prefers: ``(a, b, references)`` to -1, 0 or 1 for all examples of a batch at once.
    """

    prefers: Callable[[Any, Any, Any], float] = lambda a, b, references: 0.0


def comparison(
    compare: Callable[..., Any], *, needs: str = "texts", name: str | None = None
) -> Comparison:
    """An objective from a function, or a person, that says which of two outputs is better.

    Each step compares the outputs of its probes on the minibatch; the report compares the tuned
    with the base model, example by example. It requires an estimator that uses only the order of
    its probes; ``zoopt.tune`` selects ``"dueling"`` unless another is named.

    Args:
        compare: ``(outputs_a, outputs_b)`` to a positive number where a is better, a negative one
            where b is, 0 where they tie; or ``(outputs_a, outputs_b, references)``. Outputs are
            those of N examples.
        needs: what outputs it takes, a key of :data:`zoopt.objectives.metric.NEEDS`.
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
