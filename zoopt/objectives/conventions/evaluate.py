"""The convention of Hugging Face evaluate: ``compute`` with keyword arguments, to a dict."""

from __future__ import annotations

from typing import Any

from zoopt.objectives.conventions.reading import Reading, has, name_of

CALLED = "object.compute(predictions=..., references=...) -> dict"


def matches(fn: Any) -> bool:
    """Whether it has the method ``compute``, but not ``update``, as torchmetrics' objects do."""
    return has(fn, "compute") and not has(fn, "update")


def read(fn: Any, needs: str | None) -> Reading:
    """Reads an ``evaluate.EvaluationModule``, or an object called like one."""
    if not has(fn, "compute"):
        raise TypeError(f"{name_of(fn)} has no method compute; expected {CALLED}")

    def call(predictions: Any, references: Any) -> Any:
        return fn.compute(predictions=predictions, references=references)

    name = getattr(fn, "name", None)
    title = name if isinstance(name, str) else name_of(fn)
    return Reading(title, call, needs or "labels", keyed=True, doc=getattr(fn, "description", None))
