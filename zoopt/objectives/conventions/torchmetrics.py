"""torchmetrics' conventions: objects with ``update`` and ``compute``, functions of two tensors."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from zoopt.objectives.conventions.reading import Reading, doc_of, has, inner, name_of, ordered, pair
from zoopt.objectives.forms import FORMS

CALLED = "object.reset(), .update(preds, target), .compute(), or fn(preds, target), with tensors"


def matches(fn: Any) -> bool:
    """Whether it has the three methods, or parameters named ``preds`` and ``target``."""
    return _is_object(fn) or pair(fn) == ("preds", "target")


def read(fn: Any, needs: str | None) -> Reading:
    """Reads an object, which usually states its direction, or a function, which does not.

    The predictions they take follow from their module: ``classification`` or ``regression``.
    Binary ones get the probability of class 1.
    """
    kind = type(fn) if _is_object(fn) else inner(fn)
    module = str(getattr(kind, "__module__", "")).split(".")
    if needs is None and "classification" in module:
        needs = "probabilities"
    elif needs is None and "regression" in module:
        needs = "values"
    bound = fn.keywords if isinstance(fn, functools.partial) else {}
    binary = name_of(kind).lower().startswith("binary") or bound.get("task") == "binary"
    ask = None if _is_object(fn) else ordered(fn, references_first=False)

    def call(predictions: Any, references: Any) -> Any:
        if needs is None or FORMS[needs].made_of != "texts":
            device = getattr(fn, "device", None) if ask is None else None
            predictions = torch.as_tensor(np.asarray(predictions), device=device)
            references = torch.as_tensor(np.asarray(references), device=device)
        if binary and needs == "probabilities" and predictions.ndim == 2:
            if predictions.shape[1] != 2:
                raise ValueError(
                    f"{name_of(kind)} is for two classes, but was given probabilities of "
                    f"{predictions.shape[1]}: use the Multiclass metric of that name"
                )
            predictions = predictions[:, 1]
        if ask is not None:
            return ask(predictions, references)
        fn.reset()
        fn.update(predictions, references)
        return fn.compute()

    up = getattr(fn, "higher_is_better", None)
    return Reading(name_of(kind), call, needs, up, doc=doc_of(kind))


def _is_object(fn: Any) -> bool:
    return has(fn, "update", "compute", "reset")
