"""What a run tunes: an objective by name, by dotted path, or as the object itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from zoopt import registry
from zoopt.arguments import split
from zoopt.conventions import metric
from zoopt.conventions.reading import imported
from zoopt.metrics import Metric


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
    if not registry.is_path(objective):
        return registry.get_objective(objective)
    path, arguments = split(objective)
    return _read(imported(path), arguments)


def _read(found: Any, arguments: Mapping[str, Any]) -> Metric:
    known = registry.registered(found)
    if known is not None:
        return registry.bound(known, arguments)
    return metric(functools.partial(found, **arguments) if arguments else found)
