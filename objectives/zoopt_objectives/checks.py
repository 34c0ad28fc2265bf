"""Checks of the objectives' inputs before scoring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_TEXT = frozenset("US")
"""The ``kind`` of numpy's text dtypes."""


def check_counts(predictions: int, references: int) -> None:
    """Raises if there are no predictions, or not one reference for each."""
    if predictions == 0:
        raise ValueError(f"there is nothing to score: no predictions, and {references} references")
    if predictions != references:
        raise ValueError(
            f"{predictions} predictions and {references} references: expected one reference for "
            "each prediction"
        )


def labels(predictions: ArrayLike, references: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Predicted and true classes as non-empty arrays of equal length."""
    guess, truth = _column(predictions), _column(references)
    check_counts(guess.shape[0], truth.shape[0])
    if {guess.dtype.kind, truth.dtype.kind} & _TEXT and guess.dtype.kind != truth.dtype.kind:
        raise ValueError(
            f"predictions of type {guess.dtype} and references of type {truth.dtype}; expected "
            "texts on both sides, or numbers on both"
        )
    return guess, truth


def probabilities(predictions: ArrayLike, references: ArrayLike) -> tuple[Floats, Integers]:
    """Class probabilities, shape (N, classes), and true classes, each the index of a column."""
    rows, truth = np.asarray(predictions, dtype=np.float64), _column(references)
    check_counts(rows.shape[0], truth.shape[0])
    if rows.ndim != 2:
        raise ValueError(f"probabilities of shape {rows.shape}; expected a column for each class")
    if truth.dtype.kind not in "biu":
        raise ValueError(f"references of type {truth.dtype}; expected class indices (integers)")
    if (outside := np.flatnonzero((truth < 0) | (truth >= rows.shape[1]))).size:
        raise ValueError(
            f"references[{outside[0]}] is class {truth[outside[0]]}, but the probabilities are of "
            f"{rows.shape[1]} classes"
        )
    return rows, truth.astype(np.int64)


def values(predictions: ArrayLike, references: ArrayLike) -> tuple[Floats, Floats]:
    """Predicted and true numbers as non-empty arrays of equal length."""
    guess = _column(predictions).astype(np.float64)
    truth = _column(references).astype(np.float64)
    check_counts(guess.shape[0], truth.shape[0])
    if (missing := np.flatnonzero(np.isnan(truth))).size:
        raise ValueError(f"references[{missing[0]}] is NaN; expected a number")
    return guess, truth


def _column(given: ArrayLike) -> NDArray[Any]:
    """One entry per example, shape (N,), from shape (N,) or a single column, shape (N, 1)."""
    array = np.asarray(given)
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"an array of shape {array.shape}; expected one entry per example")
    return array


def texts(predictions: Sequence[str], references: Sequence[Any]) -> list[str]:
    """Generated texts as a list: at least one, and as many as references."""
    if isinstance(predictions, str) or isinstance(references, str):
        raise ValueError("a single text was given; expected a list of texts: put it in a list")
    check_counts(len(predictions), len(references))
    for index, text in enumerate(predictions):
        if not isinstance(text, str):
            raise TypeError(f"predictions[{index}] is {text!r}; expected a text")
    return list(predictions)


def alternatives(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> list[tuple[str, list[str]]]:
    """Each generated text with its reference texts, one or several.

    >>> alternatives(["a", "b"], ["a", ["b", "c"]])
    [('a', ['a']), ('b', ['b', 'c'])]
    """
    said = texts(predictions, references)
    known = [[some] if isinstance(some, str) else some for some in references]
    for index, some in enumerate(known):
        if not isinstance(some, Iterable) or not all(isinstance(one, str) for one in some):
            raise TypeError(
                f"references[{index}] is {some!r}; expected a text or a list of texts: convert "
                "numbers with str"
            )
        if not len(some):
            raise ValueError(f"references[{index}] is empty: each prediction needs a reference")
    return [(text, list(some)) for text, some in zip(said, known, strict=True)]


@contextmanager
def text_extra(name: str) -> Iterator[None]:
    """A context for importing an optional package; the error says what to install."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f'objective {name!r} needs {error.name}: pip install "zoopt-torch[text]"'
        ) from error
