"""Scores with confidence intervals, resampled by bootstrap."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import DegenerateDataWarning, bootstrap

from zoopt.interfaces import NonFiniteLossError
from zoopt.objectives.combination import Combination
from zoopt.objectives.forms import forms_of
from zoopt.objectives.metric import Metric
from zoopt.objectives.registry import get_objective, list_objectives
from zoopt.tasks import Scores, Task, as_needed

log = logging.getLogger("zoopt")

_RESAMPLES = 1000
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
        values: estimates by condition.
        gains: by (earlier condition, later condition); positive is better for any metric.
        each: by condition, the value of each example, shape (N,), if the metric was evaluated per
            example; NaN for undefined values.
    """

    values: dict[str, Estimate]
    gains: dict[tuple[str, str], Estimate]
    each: dict[str, NDArray[np.float64]]


def reported_metrics(task: Task, objective: Metric) -> list[Metric]:
    """The objective, its parts, and the usual metrics for the kind of task."""
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
    """Computes a metric under several conditions on the same examples, and the gains between them.

    Intervals are percentile bootstraps over the examples (Efron 1979), all from the same
    resamples, so that gains are paired by example. Resamples on which the metric is undefined (one
    class, for ROC-AUC) are left out; if they are half or more, the interval is NaN.

    Args:
        metric: the metric.
        conditions: the scores of N examples under each condition.
        references: the metric's references, as from :func:`zoopt.tasks.references_for`.
        clusters: cluster numbers of dependent examples, from 0, shape (N,); a cluster is resampled
            as a whole (Davison and Hinkley 1997, *Bootstrap Methods*, section 3.8).
    """
    names = list(conditions)
    asked = [_Asked(metric, scores, references) for scores in conditions.values()]
    sign = 1.0 if metric.higher_is_better else -1.0
    pairs = [(a, b) for b in range(len(names)) for a in range(b)]

    def statistic(index: NDArray[Any]) -> NDArray[np.float64]:
        values = [condition(index) for condition in asked]
        return np.array(values + [sign * (values[b] - values[a]) for a, b in pairs])

    with _each_warning_once():
        everything = _intervals(statistic, len(references), clusters)
    values, gains = everything[: len(names)], everything[len(names) :]
    return Comparison(
        dict(zip(names, values, strict=True)),
        {(names[a], names[b]): gain for (a, b), gain in zip(pairs, gains, strict=True)},
        {name: one.each for name, one in zip(names, asked, strict=True) if one.each is not None},
    )


class _Asked:
    """Evaluates a metric on any subset of N examples; NaN where it is undefined.

    Metrics that have a value per example, or may be expensive (a reward model, a judge of texts),
    are evaluated once per example; the latter usually are means over examples.

    Args:
        metric: the metric.
        scores: the task's scores; the metric is undefined if one of them is NaN.
        references: its references.

    Attributes:
        each: its value of each example, shape (N,); None if not evaluated per example.
    """

    def __init__(self, metric: Metric, scores: Scores, references: Any) -> None:
        self._metric, self._references = metric, references
        self._is_mean = False
        self.each: NDArray[np.float64] | None = None
        everything = np.arange(len(references))
        try:
            self._predictions = as_needed(scores, metric.needs)
        except NonFiniteLossError as error:
            self._tell(error)
            self._is_mean, self.each = True, np.full(len(references), math.nan)
            return
        if metric.each is not None:
            self._is_mean = True
            try:
                self.each = metric.by_example(self._predictions[everything], references[everything])
            except (ValueError, ArithmeticError) as error:
                self._tell(error)
                self.each = np.full(len(references), math.nan)
        elif any(form.made_of == "texts" for form in forms_of(metric.needs)):
            self.each = np.array([self._value(np.array([i])) for i in everything])
            mean, value = self.each.mean(), self._value(everything)
            self._is_mean = math.isclose(mean, value, rel_tol=1e-9, abs_tol=1e-12)

    def __call__(self, index: NDArray[Any]) -> float:
        """Returns the metric on the examples of this index."""
        if self._is_mean and self.each is not None:
            return _mean(self.each[index])
        return self._value(index)

    def _value(self, index: NDArray[Any]) -> float:
        try:
            return self._metric(self._predictions[index], self._references[index])
        except (ValueError, ArithmeticError) as error:
            if np.array_equal(index, np.arange(len(self._references))):
                self._tell(error)
            return math.nan

    def _tell(self, error: Exception) -> None:
        log.warning("%s is undefined on these examples: %s", self._metric.name, error)


@contextmanager
def _each_warning_once() -> Iterator[None]:
    """Shows each distinct warning once, of those that resampling repeats a thousand times."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for one in {(each.category, str(each.message)): each for each in caught}.values():
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean without NaN values."""
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
        # If all resamples agree, the interval is a point, which scipy calls degenerate.
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
    """A 95 % interval from resampled values; NaN if half or more of them are NaN."""
    there = resampled[~np.isnan(resampled)]
    if 2 * len(there) <= len(resampled):
        return math.nan, math.nan
    low, high = np.percentile(there, [2.5, 97.5])
    return float(low), float(high)
