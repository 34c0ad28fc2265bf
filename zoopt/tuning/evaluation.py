"""Scores with confidence intervals, and the calibrated baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from zoopt.registry import Metric, get_objective, list_objectives
from zoopt.tasks import Scores, Task, as_needed

_RESAMPLES = 1000
_PREFERRED = {
    "classes": ("accuracy", "f1_macro", "cross_entropy"),
    "values": ("mse", "pearson", "spearman"),
}


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def reported_metrics(task: Task, objective: Metric) -> list[Metric]:
    """The objective first, then what people usually want to see beside it."""
    names = [n for n in _PREFERRED["classes" if task.labels else "values"] if n != objective.name]
    available = set(list_objectives())
    return [objective, *(get_objective(name) for name in names if name in available)]


def score(metric: Metric, scores: Scores, references: NDArray[Any]) -> Estimate:
    """A metric on a sample, with the percentile bootstrap over its examples."""
    predictions = as_needed(scores, metric.needs)
    return _interval(lambda i: metric(predictions[i], references[i]), len(references))


def gain(metric: Metric, before: Scores, after: Scores, references: NDArray[Any]) -> Estimate:
    """How much better ``after`` is, paired by example; positive is better for any metric."""
    sign = 1.0 if metric.higher_is_better else -1.0
    old, new = as_needed(before, metric.needs), as_needed(after, metric.needs)

    def difference(i: NDArray[Any]) -> float:
        return sign * (metric(new[i], references[i]) - metric(old[i], references[i]))

    return _interval(difference, len(references))


def _interval(statistic: Any, n: int) -> Estimate:
    value = float(statistic(np.arange(n)))
    if n < 2:
        return Estimate(value, float("nan"), float("nan"))
    result = bootstrap(
        (np.arange(n),),
        statistic,
        n_resamples=_RESAMPLES,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return Estimate(value, float(low), float(high))


def class_offsets(scores: Scores, references: NDArray[Any]) -> NDArray[np.float64]:
    """Offsets to add to the class logits so that accuracy on this sample is highest.

    For two classes this is the best threshold. For more, each class's offset in turn is set to the
    best among the margins that the sample has, until none improves.

    Args:
        scores: class logits, shape (N, classes).
        references: true class indices, shape (N,).

    Returns:
        shape (classes,), the first one 0.

    Example:
        >>> logits = np.array([[1.0, 0.0], [1.0, 0.2], [1.0, 0.6], [1.0, 0.8]])
        >>> offsets = class_offsets(logits, np.array([0, 0, 1, 1]))
        >>> (logits + offsets).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    offsets = np.zeros(scores.shape[1])
    best = -1.0
    while True:
        before = best
        for k in range(1, scores.shape[1]):
            others = np.delete(scores + offsets, k, axis=1).max(axis=1)
            margins = np.sort(others - scores[:, k])
            cuts = np.unique(np.concatenate([[0.0], (margins[1:] + margins[:-1]) / 2]))
            for cut in cuts:
                trial = offsets.copy()
                trial[k] = cut
                right = float(((scores + trial).argmax(axis=1) == references).mean())
                if right > best:
                    best, offsets = right, trial
        if best <= before:
            return offsets


def changed(
    task: Task, examples: Sequence[Any], before: Scores, after: Scores, limit: int = 10
) -> list[dict[str, Any]]:
    """Examples whose prediction changed, those that changed most first."""
    if task.labels:
        old, new = before.argmax(axis=1), after.argmax(axis=1)
        margin = (after - before)[np.arange(len(new)), new] - (after - before)[
            np.arange(len(old)), old
        ]
        order = [i for i in np.argsort(-margin) if old[i] != new[i]]
        show: Any = lambda value: task.labels[int(value)]  # noqa: E731
    else:
        old, new = before, after
        order = list(np.argsort(-np.abs(new - old)))
        show = lambda value: f"{float(value):.3f}"  # noqa: E731
    references = task.references(examples)
    return [
        {
            "example": {k: v for k, v in examples[i].items() if k != task.target},
            "reference": show(references[i]),
            "before": show(old[i]),
            "after": show(new[i]),
            "better": abs(float(references[i] - new[i])) < abs(float(references[i] - old[i]))
            if not task.labels
            else bool(new[i] == references[i]),
        }
        for i in order[:limit]
    ]
