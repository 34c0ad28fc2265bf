"""What a run tunes: an objective by name, by dotted path, or as the object itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from zoopt.objectives import registry
from zoopt.objectives.combination import combined as read
from zoopt.objectives.combination import is_combination
from zoopt.objectives.conventions import metric
from zoopt.objectives.conventions.reading import imported
from zoopt.objectives.metric import Metric
from zoopt.support.names import split


def resolve(objective: Any) -> Metric:
    """The metric that is meant.

    Args:
        objective: a registered name or a path ``package.module:name``, either of them perhaps with
            arguments as in ``"words(target=40)"``; a metric; or anything that
            :func:`zoopt.metric` takes.

    Raises:
        KeyError: nothing has that name.
        TypeError: how it is called cannot be told.
        ValueError: which way is better is not known, or the arguments are not those it takes.
    """
    if not isinstance(objective, str):
        return _read(objective, {})
    if is_combination(objective):
        return combined(objective)
    if not registry.is_path(objective):
        return registry.get_objective(objective)
    path, arguments = split(objective)
    return _read(imported(path), arguments)


def combined(expression: str, **metrics: Any) -> Metric:
    """Several metrics as one number: a weighted sum, subject to bounds.

    Weights are taken as written. A bound that is broken makes the number worse by ``weight`` times
    the violation (1 if not said): the exact penalty method (Nocedal and Wright 2006, section 17.2).

    Args:
        expression: as in ``"squad_f1 - 0.1 * repetition subject to words <= 40 weight 0.5"``;
            several bounds are joined by ``and``.
        **metrics: metrics of your own that the expression names, as :func:`zoopt.metric` takes
            them. Other names are those of registered objectives.

    Raises:
        KeyError: nothing has a name in it.
        ValueError: it cannot be read, or adds a metric of which lower is better to one of which
            higher is.

    Example:
        >>> import numpy as np, zoopt
        >>> both = zoopt.combined("accuracy - 0.5 * cross_entropy subject to f1 >= 0.9 weight 2")
        >>> both.higher_is_better, both.name
        (True, 'accuracy - 0.5 * cross_entropy subject to f1 >= 0.9 weight 2')
    """
    return read(expression, resolve, {name: resolve(each) for name, each in metrics.items()})


def _read(found: Any, arguments: Mapping[str, Any]) -> Metric:
    known = registry.registered(found)
    if known is not None:
        return registry.bound(known, arguments)
    return metric(functools.partial(found, **arguments) if arguments else found)
