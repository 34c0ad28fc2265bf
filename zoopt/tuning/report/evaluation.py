"""Scores with confidence intervals, and the calibrated baseline."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import DegenerateDataWarning, bootstrap

from zoopt.objectives.combination import Combination
from zoopt.objectives.metric import Metric
from zoopt.objectives.registry import get_objective, list_objectives
from zoopt.tasks import Scores, Task, as_needed, references_for

log = logging.getLogger("zoopt")

_RESAMPLES = 1000
_DEAR = ("texts", "completions")
"""Needs of metrics that are asked about each example once, where that tells them all."""
_PREFERRED: Mapping[str, tuple[str, ...]] = {
    "class scores": ("accuracy", "f1_macro", "cross_entropy"),
    "values": ("mse", "pearson", "spearman"),
    "texts": (),
    "margins": ("win_rate", "bradley_terry"),
    "numbers": (),
}


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """A metric under several conditions.

    Attributes:
        values: by condition.
        gains: by (earlier condition, later condition); positive is better for any metric.
    """

    values: dict[str, Estimate]
    gains: dict[tuple[str, str], Estimate]


def reported_metrics(task: Task, objective: Metric) -> list[Metric]:
    """The objective first, its parts, then what people usually want to see beside them."""
    metrics = [objective, *(objective.metrics if isinstance(objective, Combination) else ())]
    available = {*list_objectives()} - {metric.name for metric in metrics}
    names = dict.fromkeys((task.metric, *_PREFERRED[task.gives]))
    return [*metrics, *(get_objective(name) for name in names if name in available)]


def compare(
    metric: Metric,
    conditions: Mapping[str, Scores],
    references: Any,
    clusters: NDArray[Any] | None = None,
) -> Comparison:
    """A metric under several conditions on the same examples, and what is gained between them.

    Intervals are percentile bootstraps over the examples (Efron 1979), all from the same
    resamples, so that gains are paired by example. Resamples that the metric is undefined on (one
    class, for ROC-AUC) are left out; there is no interval where they are more than half.

    Args:
        metric: what is measured.
        conditions: the scores of N examples under each condition.
        references: what the metric compares them with, as :func:`zoopt.tasks.references_for` gives.
        clusters: which examples depend on one another, as numbers from 0, shape (N,): these are
            drawn together (Davison and Hinkley 1997, *Bootstrap Methods*, section 3.8).
    """
    names = list(conditions)
    predictions = [as_needed(scores, metric.needs) for scores in conditions.values()]
    sign = 1.0 if metric.higher_is_better else -1.0
    pairs = [(a, b) for b in range(len(names)) for a in range(b)]

    of_index = [_of_index(metric, each, references) for each in predictions]

    def statistic(index: NDArray[Any]) -> NDArray[np.float64]:
        values = [value(index) for value in of_index]
        return np.array(values + [sign * (values[b] - values[a]) for a, b in pairs])

    everything = _intervals(statistic, len(references), clusters)
    values, gains = everything[: len(names)], everything[len(names) :]
    return Comparison(
        dict(zip(names, values, strict=True)),
        {(names[a], names[b]): gain for (a, b), gain in zip(pairs, gains, strict=True)},
    )


def _of_index(metric: Metric, predictions: Any, references: Any) -> Callable[[NDArray[Any]], float]:
    """The metric of some examples, NaN where it is undefined.

    One of texts may be dear (a reward model, a judge), and is mostly a mean over examples: then
    each is asked about once.
    """
    everything = np.arange(len(references))

    def value(index: NDArray[Any]) -> float:
        try:
            return metric(predictions[index], references[index])
        except (ValueError, ArithmeticError) as error:
            if np.array_equal(index, everything):
                log.warning("%s has no value on these examples: %s", metric.name, error)
            return math.nan

    if not any(needs in metric.needs for needs in _DEAR):
        return value
    if metric.each is not None:
        try:
            said = metric.each(predictions[everything], references[everything])
        except (ValueError, ArithmeticError):
            return value
        values = np.array([math.nan if one is None else one for one in said], np.float64)
    else:
        values = np.array([value(np.array([i])) for i in everything])
        if not math.isclose(values.mean(), value(everything), rel_tol=1e-9, abs_tol=1e-12):
            return value
    return lambda index: _mean(values[index])


def _mean(values: NDArray[np.float64]) -> float:
    """That of the examples that have a value."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan


def _intervals(
    statistic: Callable[[NDArray[Any]], NDArray[np.float64]], n: int, clusters: NDArray[Any] | None
) -> list[Estimate]:
    value = statistic(np.arange(n))
    if clusters is None:
        members = [np.array([i]) for i in range(n)]
    else:
        members = [np.flatnonzero(clusters == c) for c in range(clusters.max() + 1)]
    if len(members) < 2:
        return [Estimate(float(v), math.nan, math.nan) for v in value]

    def of_drawn(drawn: NDArray[Any]) -> NDArray[np.float64]:
        return statistic(np.concatenate([members[c] for c in drawn]))

    def of_rows(index: NDArray[Any], axis: int) -> NDArray[np.float64]:
        return np.apply_along_axis(of_drawn, axis, index).swapaxes(0, -1)

    with warnings.catch_warnings():
        # Where all resamples agree the interval is a point, which scipy calls degenerate.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        resampled: Any = bootstrap(
            (np.arange(len(members)),),
            of_rows,
            n_resamples=_RESAMPLES,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
    return [
        Estimate(float(v), *_percentiles(row))
        for v, row in zip(value, np.reshape(resampled, (len(value), -1)), strict=True)
    ]


def _percentiles(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """A 95 % interval from what resamples gave, NaN where they were undefined."""
    there = resampled[~np.isnan(resampled)]
    if 2 * len(there) <= len(resampled):
        return math.nan, math.nan
    low, high = np.percentile(there, [2.5, 97.5])
    return float(low), float(high)


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
            for cut in sorted({0.0, _best_cut(scores + offsets, scores[:, k], k, references)}):
                trial = offsets.copy()
                trial[k] = cut
                right = float(((scores + trial).argmax(axis=1) == references).mean())
                if right > best:
                    best, offsets = right, trial
        if best <= before:
            return offsets


def _best_cut(shifted: Scores, plain: Scores, k: int, references: NDArray[Any]) -> float:
    """The offset of class k between two margins of the sample that is right most often.

    The higher it is, the more examples go to class k: those whose margin of the best other class
    over it lies below. 0 where all margins are the same. Examples that have no such choice, whose
    score is -inf, never go there.
    """
    others = np.delete(shifted, k, axis=1)
    rival = others.argmax(axis=1)
    margins = others.max(axis=1) - plain
    order = np.argsort(margins)
    gained = (references == k) * 1 - (references == rival + (rival >= k))
    low, high = margins[order][:-1], margins[order][1:]
    between = np.flatnonzero((low < high) & np.isfinite(low) & np.isfinite(high))
    if not between.size:
        return 0.0
    best = between[np.cumsum(gained[order])[between].argmax()]
    return float((low[best] + high[best]) / 2)


def changed(
    task: Task, objective: Metric, before: Scores, after: Scores, limit: int = 10
) -> list[dict[str, Any]]:
    """Test examples whose prediction changed, those that changed most first.

    Args:
        task: its test examples.
        objective: what says which of two texts is better.
        before: what the model said of them, shape (N, …).
        after: what the tuned model says.
        limit: how many to give.
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
        # Scores of choices that an example has not are -inf, and no class to compare.
        size = after[rows, new] - before[rows, new] - (after[rows, old] - before[rows, old])
        show = lambda i, value: task.label(examples[i], int(value))  # noqa: E731
    elif task.gives == "values":
        old, new = before, after
        gain = np.abs(references - old) - np.abs(references - new)
        size = np.abs(new - old)
        show = lambda i, value: f"{float(value):.3f}"  # noqa: E731
    else:
        old, new = before, after
        compared = references_for(task, objective, examples)
        sign = 1.0 if objective.higher_is_better else -1.0
        told = [as_needed(scores, objective.needs) for scores in (old, new)]
        one = [np.arange(i, i + 1) for i in range(len(examples))]
        gain = np.array(
            [
                sign * (objective(told[1][i], compared[i]) - objective(told[0][i], compared[i]))
                for i in one
            ]
        )
        size = np.abs(gain)
        show = lambda i, value: str(value)  # noqa: E731
    order = [i for i in np.argsort(-size, kind="stable") if old[i] != new[i]]
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
    """Pairs of which the model now prefers the other."""
    share = task.references(task.test)["share"]
    moved = np.where(np.sign(before) != np.sign(after), np.abs(after - before), 0.0)
    order = [i for i in np.argsort(-moved, kind="stable") if moved[i] > 0]
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
