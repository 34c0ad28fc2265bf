"""The convention of Hugging Face evaluate: objects that compute a dict by keyword."""

from __future__ import annotations

from typing import Any

from zoopt.objectives.conventions.reading import Reading, has, name_of

CALLED = "object.compute(predictions=..., references=...) -> dict"


def matches(fn: Any) -> bool:
    """Whether it has the method ``compute``, and does not keep a state as torchmetrics do."""
    return has(fn, "compute") and not has(fn, "update")


def read(fn: Any, needs: str | None) -> Reading:
    """An ``evaluate.EvaluationModule`` or what is called like one."""
    if not has(fn, "compute"):
        raise TypeError(f"{name_of(fn)} has no method compute: it is not called as {CALLED}")

    def call(predictions: Any, references: Any) -> Any:
        return fn.compute(predictions=predictions, references=references)

    name = getattr(fn, "name", None)
    title = name if isinstance(name, str) else name_of(fn)
    return Reading(title, call, needs or "labels", keyed=True, doc=getattr(fn, "description", None))
