"""What a run tunes: an objective by name, by dotted path, or as the object itself."""

from __future__ import annotations

from typing import Any

from zoopt import registry
from zoopt.conventions import metric
from zoopt.conventions.reading import imported
from zoopt.metrics import Metric


def resolve(objective: Any) -> Metric:
    """The metric that is meant.

    Args:
        objective: a registered name; a path ``package.module:name``; a metric; or anything that
            :func:`zoopt.metric` takes.

    Raises:
        KeyError: nothing has that name.
        TypeError: how it is called cannot be told.
        ValueError: which way is better is not known.
    """
    if isinstance(objective, str):
        if ":" not in objective:
            return registry.get_objective(objective)
        objective = imported(objective)
    return registry.registered(objective) or metric(objective)
