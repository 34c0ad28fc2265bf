"""Checks that predictions and references have the form that a metric takes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from zoopt.objectives.forms import FORMS, Form
from zoopt.objectives.metric import as_array
from zoopt.objectives.returned import told


def require_form(title: str, needs: str, predictions: Any, references: Any) -> None:
    """Raises if predictions or references do not have the form that a metric takes.

    Args:
        title: the metric's name, for the message.
        needs: the form of predictions, a key of :data:`zoopt.objectives.forms.FORMS`.
        predictions: the predictions to check.
        references: the references to check.

    Raises:
        TypeError: one has another form; the message says if the two look swapped.
        ValueError: the numbers of predictions and references differ.
    """
    for side, given in (("predictions", predictions), ("references", references)):
        if isinstance(given, str) or not hasattr(given, "__len__"):
            raise TypeError(
                f"{title!r} was given {told(given)} as {side}; expected one per example"
            )
    if len(predictions) != len(references):
        raise ValueError(
            f"{title!r} was given {len(predictions)} predictions and {len(references)} "
            "references: expected one prediction for each reference"
        )
    if not len(predictions):
        return  # the metric itself refuses this
    form = FORMS[needs]
    if form.made_of == "texts":
        _require_texts(title, predictions)
    if not form.dimensions:
        return
    said, truth = as_array(predictions), as_array(references)
    if not _fit(form, said, truth):
        swapped = " They look swapped: predictions come first." * _fit(form, truth, said)
        raise TypeError(
            f"{title!r} takes {form.about}, with references of shape (N,). It was given "
            f"{_kind(said)} of shape {said.shape} as predictions and {_kind(truth)} of shape "
            f"{truth.shape} as references.{swapped}"
        )


def _fit(form: Form, predictions: NDArray[Any], references: NDArray[Any]) -> bool:
    kinds = {_kind(predictions), _kind(references)}
    return (
        predictions.ndim in form.dimensions
        and references.ndim == 1
        and (kinds == {"numbers"} or (form.made_of == "classes" and kinds == {"texts"}))
    )


def _kind(array: NDArray[Any]) -> str:
    kinds = {"b": "numbers", "i": "numbers", "u": "numbers", "f": "numbers", "U": "texts"}
    return kinds.get(array.dtype.kind, "objects")


def _require_texts(title: str, predictions: Any) -> None:
    for i, text in enumerate(predictions):
        if not isinstance(text, str):
            raise TypeError(
                f"{title!r} takes generated texts as predictions; prediction {i} is {told(text)}"
            )
