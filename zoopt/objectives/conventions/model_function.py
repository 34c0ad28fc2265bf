"""Functions of the model itself: ``(model, batch)``, ``(model)`` or ``()`` to a number."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from zoopt.objectives.conventions.reading import Reading, doc_of, name_of, positional

CALLED = (
    "(model, batch), (model) or () to a number, with the batches given to zoopt.tune(train=...)"
)


def matches(fn: Any) -> bool:
    """Whether a function's first parameter is named ``model``, or it has no parameters."""
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return False
    return not parameters or (positional(fn)[:1] == ["model"] and required(fn) <= 2)


def read(fn: Any, needs: str | None) -> Reading:
    """Reads a function of the model; its values are averaged over batches.

    Raises:
        TypeError: it takes more than a model and a batch.
    """
    count = required(fn)
    if count > 2:
        raise TypeError(
            f"{name_of(fn)}{inspect.signature(fn)} takes {count} arguments; expected {CALLED}. "
            f"Bind the other arguments, as in functools.partial({name_of(fn)}, ...)"
        )

    def mean(values: Any, references: Any) -> float:
        return float(np.mean(values))

    return Reading(name_of(fn), mean, needs or "model", allowed=("model",), doc=doc_of(fn), asks=fn)


def required(fn: Any) -> int:
    """Number of a function's required positional parameters, plus any named ``batch``."""
    parameters = inspect.signature(fn).parameters
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(
        p.kind in kinds and (p.default is p.empty or p.name == "batch") for p in parameters.values()
    )
