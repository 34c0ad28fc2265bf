"""Objectives for classes. Class indices, or class probabilities, against true class indices.

All but cross-entropy are piecewise constant: they have no gradient, and a probe sees a difference
only where a prediction changes sides, so they want larger batches and a larger ε.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from zoopt import register_objective


@register_objective("accuracy", higher_is_better=True)
def accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Share of predictions that are right, in [0, 1].

    >>> accuracy([0, 1, 1, 0], [0, 1, 0, 0])
    0.75
    """
    return float(accuracy_score(references, predictions))


@register_objective("balanced_accuracy", higher_is_better=True)
def balanced_accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean over the classes among the references of the share of each that is found, in [0, 1].

    >>> balanced_accuracy([0, 0, 0, 0], [0, 0, 0, 1])
    0.5
    """
    present = np.unique(np.asarray(references))
    return float(
        recall_score(references, predictions, labels=present, average="macro", zero_division=0)
    )


@register_objective("f1", higher_is_better=True)
def f1(predictions: ArrayLike, references: ArrayLike) -> float:
    """F1 of class 1, 2 · precision · recall / (precision + recall), in [0, 1]; 0 if undefined.

    >>> round(f1([1, 1, 0, 0], [1, 0, 1, 0]), 3)
    0.5
    """
    return _f1(predictions, references, "binary")


@register_objective("f1_macro", higher_is_better=True)
def f1_macro(predictions: ArrayLike, references: ArrayLike) -> float:
    """Unweighted mean of each class's F1, in [0, 1].

    >>> round(f1_macro([0, 1, 2, 2], [0, 1, 2, 1]), 3)
    0.778
    """
    return _f1(predictions, references, "macro")


@register_objective("f1_micro", higher_is_better=True)
def f1_micro(predictions: ArrayLike, references: ArrayLike) -> float:
    """F1 of all decisions pooled, in [0, 1]; equals accuracy where each example has one class.

    >>> f1_micro([0, 1, 2, 2], [0, 1, 2, 1])
    0.75
    """
    return _f1(predictions, references, "micro")


@register_objective("f1_weighted", higher_is_better=True)
def f1_weighted(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean of each class's F1, weighted by how often the class occurs, in [0, 1].

    >>> round(f1_weighted([0, 1, 2, 2], [0, 1, 2, 1]), 6)
    0.75
    """
    return _f1(predictions, references, "weighted")


@register_objective("cross_entropy", higher_is_better=False, needs="probabilities")
def cross_entropy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean negative log-probability of the true class, in nats; 0 is perfect.

    Args:
        predictions: class probabilities, shape (N, classes), rows summing to 1.
        references: true class indices, shape (N,).

    >>> round(cross_entropy([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
    0.4904
    """
    probabilities = np.asarray(predictions, dtype=np.float64)
    classes = np.arange(probabilities.shape[1])
    return float(log_loss(references, probabilities, labels=classes))


def _f1(predictions: ArrayLike, references: ArrayLike, average: str) -> float:
    return float(f1_score(references, predictions, average=average, zero_division=0))
