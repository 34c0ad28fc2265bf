"""Conformance check for objectives."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoopt.objectives.forms import FORMS
from zoopt.objectives.metric import Metric
from zoopt.objectives.resolve import resolve
from zoopt.testing.common import require

EXAMPLES = 24
SURE = 0.9
"""Probability of the right class in good predictions."""


def check_objective(
    objective: Any,
    *,
    references: Sequence[Any] | None = None,
    good: Sequence[Any] | None = None,
    bad: Sequence[Any] | None = None,
    classes: int = 2,
    any_order: bool = True,
) -> None:
    """Checks an objective against its contract: one finite number, in bounds, better when better.

    It must be a pure function that does not modify its arguments; equal the mean of its values per
    example, if it has these; rank good predictions above bad ones in its declared direction; and
    raise an error for empty predictions, and for NaN with the example's index. Predictions of
    numbers or classes are generated here; texts must be given by the caller.

    Args:
        objective: any objective of :func:`zoopt.tune`: a registered name, a metric, a function.
        references: the references of the predictions; for completions, examples with a prompt.
        good: best possible predictions; by default made from the references.
        bad: worse predictions; by default the good ones in another order.
        classes: number of classes, if predictions are of classes.
        any_order: whether to require independence of the examples' order.

    Raises:
        AssertionError: names the first property that does not hold.
        ValueError: predictions cannot be generated; give good and bad ones.
    """
    metric = resolve(objective)
    needs = metric.needs
    if not isinstance(needs, str) or needs == "model" or metric.from_base:
        raise ValueError(
            f"{metric.name!r} combines other objectives or needs a model: check its parts instead"
        )
    truth = _array(_references(metric, classes) if references is None else references, needs)
    best = _array(_good(metric, truth, classes) if good is None else good, needs)
    if bad is None and needs == "completions":
        raise ValueError(
            f"{metric.name!r} judges completions, which may be good for any prompt: give bad "
            "completions as well as good ones"
        )
    worse = list(_reordered(best)) if bad is None else [_array(bad, needs)]
    _leaves_what_it_is_given(metric, best, truth)
    _is_a_number_in_bounds(metric, [best, *worse], truth)
    _is_a_function(metric, best, worse[0], truth)
    _is_the_mean_of_each(metric, [best, *worse], truth)
    if any_order:
        _has_no_order(metric, worse, truth)
    _prefers(metric, best, worse, truth)
    _refuses_nothing(metric)
    if FORMS[needs].made_of == "numbers":
        _refuses_nan(metric, best, truth)


def _references(metric: Metric, classes: int) -> NDArray[Any]:
    if metric.needs in ("texts", "completions", "margins"):
        raise ValueError(f"{metric.name!r} takes {metric.needs}: give references, good= and bad=")
    if metric.needs == "values":
        # Non-negative, and some of them 0, since they may be relevances.
        drawn = np.random.default_rng(0).normal(size=EXAMPLES)
        return np.maximum(drawn, 0.0)
    return np.arange(EXAMPLES) % classes


def _good(metric: Metric, truth: NDArray[Any], classes: int) -> Sequence[Any] | NDArray[Any]:
    if metric.needs == "completions":
        raise ValueError(f"{metric.name!r} judges completions: give good and bad ones")
    if metric.needs == "texts":
        return [known if isinstance(known, str) else known[0] for known in truth]
    if metric.needs == "probabilities" or (metric.needs == "scores" and truth.dtype.kind in "biu"):
        chances = np.full((len(truth), classes), (1 - SURE) / (classes - 1))
        chances[np.arange(len(truth)), truth] = SURE
        return np.log(chances) if metric.needs == "scores" else chances
    return truth


def _array(items: Sequence[Any] | NDArray[Any], needs: str) -> NDArray[Any]:
    """Converts items to an array as tasks do: numbers, or one object per example."""
    if FORMS[needs].made_of == "texts":
        return np.fromiter(items, dtype=object, count=len(items))
    return np.asarray(items)


def _reordered(predictions: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Predictions permuted among the examples."""
    for seed in range(4):
        yield predictions[np.random.default_rng(seed).permutation(len(predictions))]


def _is_a_number_in_bounds(
    metric: Metric, predictions: Sequence[NDArray[Any]], truth: NDArray[Any]
) -> None:
    low, high = metric.bounds
    for each in predictions:
        value = metric(each, truth)
        require(math.isfinite(value), f"{metric.name!r} is {value}, which is not finite")
        require(
            low <= value <= high,
            f"{metric.name!r} is {value:.17g}, which is outside its bounds [{low}, {high}]",
        )


def _is_a_function(
    metric: Metric, best: NDArray[Any], worse: NDArray[Any], truth: NDArray[Any]
) -> None:
    first = metric(best, truth)
    metric(worse, truth)
    again = metric(best, truth)
    require(
        first == again,
        f"{metric.name!r} of the same predictions is {first!r} and then {again!r}: it draws random "
        "numbers, or keeps state between calls",
    )


def _is_the_mean_of_each(
    metric: Metric, predictions: Sequence[NDArray[Any]], truth: NDArray[Any]
) -> None:
    for each in predictions:
        said = metric.by_example(each, truth)
        if said is None:
            return
        value, mean = metric(each, truth), float(np.nanmean(said))
        require(
            said.shape == (len(truth),) and math.isclose(value, mean, rel_tol=1e-5, abs_tol=1e-5),
            f"{metric.name!r} is {value:.6g}, but the mean of its each= over {said.size} "
            f"examples is {mean:.6g}: use each only for means over examples",
        )


def _leaves_what_it_is_given(metric: Metric, best: NDArray[Any], truth: NDArray[Any]) -> None:
    given = {"predictions": copy.deepcopy(best), "references": copy.deepcopy(truth)}
    before = copy.deepcopy(given)
    metric(*given.values())
    for side, kept in before.items():
        require(
            all(map(_equal, kept, given[side])),
            f"{metric.name!r} modifies the {side} that it is given; let it work on a copy",
        )


def _has_no_order(metric: Metric, predictions: Sequence[NDArray[Any]], truth: NDArray[Any]) -> None:
    back = np.arange(len(truth))[::-1]
    for each in predictions:
        forward, backward = metric(each, truth), metric(each[back], truth[back])
        require(
            math.isclose(forward, backward, rel_tol=1e-5, abs_tol=1e-5),
            f"{metric.name!r} is {forward:.6g}, but {backward:.6g} with the same examples in "
            "reverse. If it is meant to depend on their order, use any_order=False",
        )


def _prefers(
    metric: Metric, best: NDArray[Any], worse: Sequence[NDArray[Any]], truth: NDArray[Any]
) -> None:
    sign, most = (1 if metric.higher_is_better else -1), metric(best, truth)
    values = [metric(each, truth) for each in worse]
    least = max(values, key=lambda value: sign * value)
    declared = f"higher_is_better={metric.higher_is_better}"
    require(
        sign * most >= sign * least,
        f"{metric.name!r} is {most:.6g} for good predictions and {least:.6g} for worse ones, but "
        f"declares {declared}: reverse this, or give predictions that are good for it",
    )
    require(
        any(value != most for value in values),
        f"{metric.name!r} is {most:.6g} for good and for worse predictions, so {declared} "
        "cannot be verified: give predictions that it distinguishes",
    )


def _refuses_nothing(metric: Metric) -> None:
    value = _unless_refused(lambda: metric([], []))
    require(value is None, f"{metric.name!r} is {value} for no predictions; it must raise an error")


def _refuses_nan(metric: Metric, best: NDArray[Any], truth: NDArray[Any]) -> None:
    index = len(best) // 2
    spoiled = best.astype(np.float64)
    spoiled[index] = math.nan
    try:
        value = metric(spoiled, truth)
    except (ValueError, ArithmeticError) as error:
        require(
            str(index) in str(error),
            f"{metric.name!r} refuses the NaN of example {index} without its index: {error}",
        )
    else:
        require(False, f"{metric.name!r} is {value} though example {index} is NaN; it must raise")


def _unless_refused(score: Callable[[], float]) -> float | None:
    try:
        return score()
    except (ValueError, ArithmeticError):
        return None


def _equal(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else bool(a == b)
