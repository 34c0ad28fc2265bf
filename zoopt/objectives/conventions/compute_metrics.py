"""The convention of the Hugging Face Trainer: ``compute_metrics(EvalPrediction)`` to a dict."""

from __future__ import annotations

from typing import Any

from zoopt.objectives.conventions.reading import (
    Reading,
    doc_of,
    must_bind,
    name_of,
    parameters,
    positional,
)

CALLED = "compute_metrics(EvalPrediction(predictions=scores, label_ids=references)) -> dict"

PARAMETERS = ("eval_pred", "eval_preds", "eval_prediction", "p", "pred")


def matches(fn: Any) -> bool:
    """Whether its only required parameter is named as in Hugging Face's examples."""
    names = positional(fn)
    given = parameters(fn)
    return (
        bool(names)
        and names[0] in PARAMETERS
        and all(given[name].default is not given[name].empty for name in names[1:])
    )


def read(fn: Any, needs: str | None) -> Reading:
    """Reads a function of an ``EvalPrediction``, which gets the task's scores unchanged."""
    must_bind(fn, 1)

    def call(predictions: Any, references: Any) -> Any:
        from transformers import EvalPrediction

        return fn(EvalPrediction(predictions=predictions, label_ids=references))

    return Reading(name_of(fn), call, needs or "scores", keyed=True, doc=doc_of(fn))
