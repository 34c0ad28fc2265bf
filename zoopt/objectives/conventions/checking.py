"""What goes into a metric and what comes out: predictions of its form, and one number."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from zoopt.objectives.metric import NEEDS, as_array

DIMENSIONS = {
    "labels": (1,),
    "probabilities": (2,),
    "values": (1,),
    "scores": (1, 2),
    "model": (1,),
}
"""How many dimensions predictions have, where they are compared with one number or class each."""

TEXTS = ("texts", "completions")


def require_form(title: str, needs: str, predictions: Any, references: Any) -> None:
    """Raises where a metric would be given something else than it takes.

    Args:
        title: the metric's name, for the message.
        needs: what predictions it takes, a key of :data:`zoopt.objectives.metric.NEEDS`.
        predictions: what it is given as such.
        references: what they are compared with.

    Raises:
        TypeError: it is of another form; the message says if the two look swapped.
        ValueError: there are not as many predictions as references.
    """
    for side, given in (("predictions", predictions), ("references", references)):
        if isinstance(given, str) or not hasattr(given, "__len__"):
            raise TypeError(f"{title!r} was given {told(given)} as {side}; expected one an example")
    if len(predictions) != len(references):
        raise ValueError(
            f"{title!r} was given {len(predictions)} predictions and {len(references)} "
            "references: expected one prediction for each reference"
        )
    if not len(predictions):
        return  # which the metric itself refuses
    if needs in TEXTS:
        _require_texts(title, predictions)
    if needs not in DIMENSIONS:
        return
    said, truth = as_array(predictions), as_array(references)
    if not _fit(needs, said, truth):
        swapped = " They look swapped: predictions come first." * _fit(needs, truth, said)
        raise TypeError(
            f"{title!r} takes {NEEDS[needs]}, with references of shape (N,). It was given "
            f"{_kind(said)} of shape {said.shape} as predictions and {_kind(truth)} of shape "
            f"{truth.shape} as references.{swapped}"
        )


def _fit(needs: str, predictions: NDArray[Any], references: NDArray[Any]) -> bool:
    kinds = {_kind(predictions), _kind(references)}
    return (
        predictions.ndim in DIMENSIONS[needs]
        and references.ndim == 1
        and (kinds == {"numbers"} or (needs == "labels" and kinds == {"texts"}))
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


def number(returned: Any, name: str, *, key: str | None = None, keyed: bool = False) -> float:
    """What a metric returned, as a float; NaN and infinity are for the optimizer to judge.

    Args:
        returned: a number, an array of one, or a dict of them.
        name: the metric's, for the message.
        key: which entry of a dict, with or without ``eval_`` before it.
        keyed: a dict's only entry needs no key.

    Raises:
        TypeError: it is not one number.
        KeyError: the dict has no such key.
    """
    if isinstance(returned, Mapping):
        if key is None and not (keyed and len(returned) == 1):
            raise TypeError(
                f"{name!r} returned a dict; expected one number: choose an entry with key=..., "
                f"one of {', '.join(map(repr, returned))}"
            )
        bare = key.removeprefix("eval_") if key is not None else next(iter(returned))
        for candidate in (key, bare, f"eval_{bare}"):
            if candidate in returned:
                return number(returned[candidate], f"{name}[{candidate}]")
        raise KeyError(f"{name!r} returned no {key!r}; it has {', '.join(map(repr, returned))}")
    if key is not None:
        raise TypeError(f"{name!r} returned {told(returned)}, no dict with {key!r}: leave out key")
    value = plain(returned)
    if value is None:
        hints = {
            "NoneType": "let it return its number",
            "str": "let it return the number, not a text of it",
            "coroutine": 'await it in an ordinary function; only convention="reward" may be async',
        }
        reduce = "reduce it to one, for example with .mean() or average='macro'"
        raise TypeError(
            f"{name!r} returned {told(returned)}; expected one number: "
            f"{hints.get(type(returned).__name__, reduce)}"
        )
    return value


def plain(value: Any) -> float | None:
    """A number or an array of one as a float, and None for anything else.

    >>> plain(True), plain("1"), plain([1.0])
    (1.0, None, None)
    """
    try:
        bare = value.item() if hasattr(value, "item") else value
        return float(bare) if isinstance(bare, numbers.Number) else None  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None


def told(value: Any) -> str:
    """A value's kind, for a message.

    >>> told(None), told("0.5"), told([1, 2])
    ('None', "the string '0.5'", 'a list of 2')
    """
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the string {value!r}"
    if hasattr(value, "shape"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {value!r}"
