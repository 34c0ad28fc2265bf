"""scikit-learn's conventions: scorers, names of scorers, and functions (y_true, y_pred)."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from zoopt.objectives.conventions.reading import (
    Reading,
    doc_of,
    inner,
    name_of,
    ordered,
    pair,
    parameters,
    positional,
)
from zoopt.support.names import hint

CALLED = 'a scorer\'s name ("f1_macro"), scorer(estimator, X, y_true), or fn(y_true, y_pred)'

PROBABILITIES = ("y_prob", "y_proba", "y_score")
"""Parameters that take probabilities; for two classes, the probability of class 1."""


def matches(fn: Any) -> bool:
    """Whether it is a string, a scorer, or a function that takes ``y_true``."""
    names = pair(fn)
    return isinstance(fn, str) or is_scorer(fn) or (names is not None and names[1] == "y_true")


def is_scorer(fn: Any) -> bool:
    """Whether it is called like a scorer, with an estimator and its inputs."""
    return positional(fn)[:2] == ["estimator", "X"]


def read(fn: Any, needs: str | None) -> Reading:
    """Reads a function, or a scorer, which gets an estimator that returns the task's scores.

    For scorers, higher is better. For scikit-learn's own functions the name tells: higher is
    better for ``_score``, lower for ``_error``, ``_loss`` and ``_deviance``.
    """
    if isinstance(fn, str):
        return _scorer(_named(fn), needs, fn)
    return _scorer(fn, needs, _title(fn)) if is_scorer(fn) else _function(fn, needs)


def _named(name: str) -> Any:
    from sklearn.metrics import get_scorer, get_scorer_names

    try:
        return get_scorer(name)
    except ValueError:
        raise ValueError(
            f"scikit-learn has no scorer {name!r}.{hint(name, get_scorer_names())} "
            "sklearn.metrics.get_scorer_names() lists them; name your own function as "
            "package.module:function."
        ) from None


def _title(scorer: Any) -> str:
    """A scorer's name, taken from its ``repr``, which has the function that it was made from."""
    made = re.match(r"make_scorer\((\w+)(.*)", repr(scorer), re.DOTALL)
    if made is None:
        return name_of(scorer)
    return ("neg_" if "greater_is_better=False" in made[2] else "") + made[1]


def _scorer(scorer: Any, needs: str | None, title: str) -> Reading:
    from zoopt.objectives.conventions.scikit_estimator import Classifier, Regressor

    def call(predictions: ArrayLike, references: ArrayLike) -> Any:
        scores = np.asarray(predictions)
        facade = Classifier(scores) if scores.ndim == 2 else Regressor(scores)
        ask = _of_classes(scorer, scores.shape[1]) if scores.ndim == 2 else scorer
        return ask(facade, np.arange(len(scores))[:, None], np.asarray(references))

    return Reading(
        title,
        call,
        needs or "scores",
        higher_is_better=True,
        settled=True,
        allowed=("scores", "values"),
        doc=f"scikit-learn's scorer {title}.",
    )


def _of_classes(scorer: Any, number: int) -> Any:
    """The scorer, given all classes if it uses probabilities, as a minibatch may lack one."""
    asks_for = getattr(scorer, "_response_method", ())
    function, options = getattr(scorer, "_score_func", None), getattr(scorer, "_kwargs", {})
    told = function is None or "labels" not in parameters(function) or "labels" in options
    if told or "predict_proba" not in asks_for:
        return scorer
    made = copy.copy(scorer)
    made._kwargs = {**options, "labels": np.arange(number)}
    return made


def _function(fn: Any, needs: str | None) -> Reading:
    function, names, title = inner(fn), pair(fn), name_of(fn)
    module = str(getattr(function, "__module__", "")).split(".")
    theirs = module[0] == "sklearn"
    if needs is None and (
        (names is not None and names[0] in PROBABILITIES)
        or (theirs and title in ("log_loss", "d2_log_loss_score"))
    ):
        needs = "probabilities"
    elif needs is None:
        needs = "values" if theirs and module[-1] == "_regression" else "labels"
    labels = parameters(fn).get("labels")
    told = theirs and labels is not None and labels.default is None
    ask = ordered(fn, references_first=True)

    def call(predictions: ArrayLike, references: ArrayLike) -> Any:
        if needs != "probabilities":
            return ask(predictions, references)
        chances = np.asarray(predictions)
        more: dict[str, Any] = {}
        if chances.ndim == 2:
            # A minibatch may lack a class.
            more = {"labels": np.arange(chances.shape[1])} if told else {}
            chances = chances[:, 1] if chances.shape[1] == 2 else chances
        return ask(chances, references, **more)

    up = None
    if theirs and title.endswith(("_score", "_error", "_loss", "_deviance")):
        up = title.endswith("_score")
    return Reading(title, call, needs, up, doc=doc_of(fn))
