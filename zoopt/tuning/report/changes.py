"""Test examples whose prediction changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoopt.objectives.metric import Metric
from zoopt.tasks import Scores, Task
from zoopt.tuning.report.evaluation import Comparison


def changed(
    task: Task, objective: Metric, found: Comparison, before: Scores, after: Scores, limit: int = 10
) -> list[dict[str, Any]]:
    """Returns the test examples whose prediction changed, largest change first.

    Args:
        task: provides the test examples.
        objective: the tuned objective.
        found: its values of each text under "before" and "tuned".
        before: the base model's predictions, shape (N, …).
        after: the tuned model's predictions.
        limit: maximum number of examples.
    """
    if task.gives == "numbers":
        return []
    if task.gives == "margins":
        return _turned(task, before, after, limit)
    examples, references = task.test, task.references(task.test)
    show: Callable[[int, Any], str]
    if task.gives == "class scores":
        old, new = before.argmax(axis=1), after.argmax(axis=1)
        rows = np.arange(len(new))
        gain = (new == references) * 1.0 - (old == references)
        # Choices that an example does not have score -inf and are not compared.
        size = after[rows, new] - before[rows, new] - (after[rows, old] - before[rows, old])
        show = lambda i, value: task.label(examples[i], int(value))  # noqa: E731
    elif task.gives == "values":
        old, new = before, after
        gain = np.abs(references - old) - np.abs(references - new)
        size = np.abs(new - old)
        show = lambda i, value: f"{float(value):.3f}"  # noqa: E731
    else:
        old, new = before, after
        sign = 1.0 if objective.higher_is_better else -1.0
        gain = sign * (found.each["tuned"] - found.each["before"])
        size = np.abs(gain)
        show = lambda i, value: str(value)  # noqa: E731
    order = [i for i in np.argsort(-size, kind="stable").tolist() if old[i] != new[i]]
    return [
        {
            "example": {k: v for k, v in examples[i].items() if k != task.target},
            "reference": show(i, references[i]),
            "before": show(i, old[i]),
            "after": show(i, new[i]),
            "better": bool(gain[i] > 0),
        }
        for i in order[:limit]
    ]


def _turned(task: Task, before: Scores, after: Scores, limit: int) -> list[dict[str, Any]]:
    """Pairs whose preferred member changed."""
    share = task.references(task.test)["share"]
    moved = np.where(np.sign(before) != np.sign(after), np.abs(after - before), 0.0)
    order = [i for i in np.argsort(-moved, kind="stable").tolist() if moved[i] > 0]
    says = ("rejected", "chosen")
    return [
        {
            "example": {side: task.test[i][side] for side in ("chosen", "rejected")},
            "reference": f"chosen by {share[i]:.0%}",
            "before": says[int(before[i] > 0)],
            "after": says[int(after[i] > 0)],
            "better": bool(after[i] > before[i]),
        }
        for i in order[:limit]
    ]
