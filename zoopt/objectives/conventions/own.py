"""zoopt's own convention: ``(predictions, references)`` to a number."""

from __future__ import annotations

from typing import Any

from zoopt.objectives.conventions.reading import Reading, doc_of, name_of, ordered, pair

CALLED = "fn(predictions, references) -> number"


def matches(fn: Any) -> bool:
    """Whether its parameters are named ``predictions`` and ``references``."""
    return pair(fn) == ("predictions", "references")


def read(fn: Any, needs: str | None) -> Reading:
    """Reads a function of predictions and references; class labels unless ``needs`` is given."""
    call = ordered(fn, references_first=False)
    return Reading(name_of(fn), call, needs or "labels", doc=doc_of(fn))
