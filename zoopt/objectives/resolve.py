"""Finds the metric for an objective given by name, by dotted path, or as an object."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from zoopt.objectives import registry
from zoopt.objectives.combination import combined as read
from zoopt.objectives.conventions import metric
from zoopt.objectives.expression import is_combination, parse
from zoopt.objectives.metric import Metric
from zoopt.support.imports import imported
from zoopt.support.names import split


def resolve(objective: Any) -> Metric:
    """The metric for an objective.

    Args:
        objective: a registered name or a path ``package.module:name``, optionally with
            arguments as in ``"words(target=40)"``; an expression as for :func:`zoopt.combined`; a
            metric; or anything that :func:`zoopt.metric` takes.

    Raises:
        KeyError: no objective has that name.
        ModuleNotFoundError: there is no module at a path.
        TypeError: its calling convention is not recognised.
        ValueError: its direction is not known, or it does not take the arguments.
    """
    if not isinstance(objective, str):
        return _read(objective, {})
    if is_combination(objective, registry.list_objectives()):
        return combined(objective)
    if not registry.is_path(objective):
        return registry.get_objective(objective)
    path, arguments = split(objective)
    return _read(imported(path), arguments)


def paths(objective: str) -> list[str]:
    """The dotted paths in an objective, whose modules :func:`resolve` imports.

    >>> paths("f1 - 0.1 * my_package.rewards:polite(word='thanks')")
    ["my_package.rewards:polite(word='thanks')"]
    """
    known = registry.list_objectives()
    named = parse(objective, known).names if is_combination(objective, known) else (objective,)
    return [name for name in named if registry.is_path(name)]


def combined(expression: str, **metrics: Any) -> Metric:
    """Several metrics as one number: a weighted sum, subject to bounds.

    Weights are used as written. A violated bound makes the number worse by ``weight`` (default 1)
    times the violation: the exact penalty method (Nocedal and Wright 2006, section 17.2).

    Args:
        expression: as in ``"squad_f1 - 0.1 * repetition subject to words <= 40 weight 0.5"``;
            several bounds are joined by ``and``. Names may have arguments, or be dotted paths
            ``package.module:name``.
        **metrics: your own metrics that the expression names, in any form that
            :func:`zoopt.metric` takes. Other names are those of registered objectives.

    Raises:
        KeyError: a name in it is unknown.
        ValueError: it cannot be parsed, or adds metrics with opposite directions.

    Example:
        >>> import numpy as np, zoopt
        >>> both = zoopt.combined("accuracy - 0.5 * cross_entropy subject to f1 >= 0.9 weight 2")
        >>> both.higher_is_better, both.name
        (True, 'accuracy - 0.5 * cross_entropy subject to f1 >= 0.9 weight 2')
    """
    own = {name: resolve(each) for name, each in metrics.items()}
    return read(expression, own, resolve, registry.list_objectives())


def _read(found: Any, arguments: Mapping[str, Any]) -> Metric:
    known = registry.registered(found)
    if known is not None:
        return registry.bound(known, arguments)
    return metric(functools.partial(found, **arguments) if arguments else found)
