"""Objectives for classes: predicted against true class indices, both of shape (N,).

All are piecewise constant: they have no gradient, and probes differ only if a predicted class
changes, so they need larger batches and a larger ε, or a smooth objective of the probabilities.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoopt import register_objective
from zoopt_objectives import checks


def _right(predictions: ArrayLike, references: ArrayLike) -> NDArray[np.bool_]:
    guess, truth = checks.labels(predictions, references)
    right: NDArray[np.bool_] = guess == truth
    return right


@register_objective(
    "accuracy",
    higher_is_better=True,
    bounds=(0, 1),
    piecewise_constant=True,
    smooth="expected_accuracy",
    each=_right,
)
def accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Share of predictions that are right, in [0, 1].

    >>> accuracy([0, 1, 1, 0], [0, 1, 0, 0])
    0.75
    """
    return float(_right(predictions, references).mean())


@register_objective(
    "balanced_accuracy",
    higher_is_better=True,
    bounds=(0, 1),
    piecewise_constant=True,
    smooth="cross_entropy",
)
def balanced_accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean recall over the classes that occur in the references, in [0, 1].

    >>> balanced_accuracy([0, 0, 0, 0], [0, 0, 0, 1])
    0.5
    """
    _, counts = _confusion(predictions, references)
    true = counts.sum(axis=1)
    return float((counts.diagonal()[true > 0] / true[true > 0]).mean())


@register_objective(
    "f1", higher_is_better=True, bounds=(0, 1), piecewise_constant=True, smooth="soft_f1"
)
def f1(predictions: ArrayLike, references: ArrayLike) -> float:
    """F1 of class 1, 2 · precision · recall / (precision + recall), in [0, 1]; 0 if undefined.

    Raises:
        ValueError: there is more than one class besides class 1.

    >>> round(f1([1, 1, 0, 0], [1, 0, 1, 0]), 3)
    0.5
    """
    classes, counts = _confusion(predictions, references)
    if (others := classes[classes != 1]).size > 1:
        raise ValueError(
            f"f1 is of class 1 against one other, but there are {others.tolist()}: tune f1_macro"
        )
    return float(_f1(counts)[classes == 1].sum())


@register_objective(
    "f1_macro",
    higher_is_better=True,
    bounds=(0, 1),
    piecewise_constant=True,
    smooth="cross_entropy",
)
def f1_macro(predictions: ArrayLike, references: ArrayLike) -> float:
    """Unweighted mean of each class's F1, in [0, 1].

    >>> round(f1_macro([0, 1, 2, 2], [0, 1, 2, 1]), 3)
    0.778
    """
    _, counts = _confusion(predictions, references)
    return float(_f1(counts).mean())


@register_objective(
    "f1_micro",
    higher_is_better=True,
    bounds=(0, 1),
    piecewise_constant=True,
    smooth="expected_accuracy",
    each=_right,
)
def f1_micro(predictions: ArrayLike, references: ArrayLike) -> float:
    """F1 of all decisions pooled, in [0, 1]; equals accuracy if each example has one class.

    >>> f1_micro([0, 1, 2, 2], [0, 1, 2, 1])
    0.75
    """
    return accuracy(predictions, references)


@register_objective(
    "f1_weighted",
    higher_is_better=True,
    bounds=(0, 1),
    piecewise_constant=True,
    smooth="cross_entropy",
)
def f1_weighted(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean of each class's F1, weighted by how often the class occurs, in [0, 1].

    >>> round(f1_weighted([0, 1, 2, 2], [0, 1, 2, 1]), 6)
    0.75
    """
    _, counts = _confusion(predictions, references)
    return float(np.average(_f1(counts), weights=counts.sum(axis=1)))


@register_objective(
    "mcc", higher_is_better=True, bounds=(-1, 1), piecewise_constant=True, smooth="cross_entropy"
)
def mcc(predictions: ArrayLike, references: ArrayLike) -> float:
    """Matthews' correlation of predicted and true classes, in [-1, 1]; 0 if undefined.

    >>> round(mcc([1, 1, 0, 0], [1, 0, 0, 0]), 3)
    0.577
    """
    _, counts = _confusion(predictions, references)
    true, guessed, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    spread = [float(total**2 - side @ side) for side in (true, guessed)]
    together = float(counts.trace() * total - true @ guessed)
    return together / math.sqrt(math.prod(spread)) if all(spread) else 0.0


@register_objective(
    "cohen_kappa",
    higher_is_better=True,
    bounds=(-1, 1),
    piecewise_constant=True,
    smooth="cross_entropy",
)
def cohen_kappa(predictions: ArrayLike, references: ArrayLike) -> float:
    """Agreement beyond chance, in [-1, 1]: Cohen's κ; 0 if undefined.

    >>> cohen_kappa([1, 1, 0, 0], [1, 0, 0, 0])
    0.5
    """
    _, counts = _confusion(predictions, references)
    true, guessed, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    by_chance = total - true @ guessed / total
    return float(1 - (total - counts.trace()) / by_chance) if by_chance else 0.0


def _confusion(
    predictions: ArrayLike, references: ArrayLike
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The C classes that occur, and the confusion matrix (C, C): rows true, columns predicted."""
    guess, truth = checks.labels(predictions, references)
    classes, index = np.unique(np.concatenate([truth, guess]), return_inverse=True)
    pairs = index[: truth.size] * classes.size + index[truth.size :]
    counts = np.bincount(pairs, minlength=classes.size**2)
    return classes, counts.reshape(classes.size, classes.size)


def _f1(counts: NDArray[np.int64]) -> checks.Floats:
    """F1 of each class."""
    f1: checks.Floats = 2 * counts.diagonal() / (counts.sum(axis=0) + counts.sum(axis=1))
    return f1
