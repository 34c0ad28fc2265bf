"""Objectives for class probabilities, shape (N, classes), and true class indices, shape (N,).

Cross-entropy, expected accuracy and soft F1 are smooth. The last two can be tuned in place of
accuracy and F1 if these give equal values at most probes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr
from sklearn.metrics import roc_auc_score

from zoopt import register_objective
from zoopt_objectives import checks

CALIBRATION_BINS = 15


def _probability(predictions: ArrayLike, references: ArrayLike) -> checks.Floats:
    """The probability of the true class, for each example."""
    probabilities, truth = checks.probabilities(predictions, references)
    return probabilities[np.arange(truth.size), truth]


def _surprise(predictions: ArrayLike, references: ArrayLike) -> checks.Floats:
    """Negative log-probability of the true class, finite even if the probability is 0."""
    probability = _probability(predictions, references)
    if (outside := np.flatnonzero((probability < 0) | (probability > 1))).size:
        raise ValueError(
            f"the probability of example {outside[0]}'s class is {probability[outside[0]]}: "
            "expected a number from 0 to 1, such as the softmax of logits"
        )
    smallest = np.finfo(np.float64).eps
    return -np.log(np.clip(probability, smallest, 1 - smallest))


def _among_five(predictions: ArrayLike, references: ArrayLike) -> NDArray[np.bool_]:
    probabilities, truth = checks.probabilities(predictions, references)
    if probabilities.shape[1] <= 5:
        raise ValueError(
            f"top5_accuracy of {probabilities.shape[1]} classes is always 1; expected more than "
            "five classes: tune accuracy"
        )
    five = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    found: NDArray[np.bool_] = (five == truth[:, None]).any(axis=1)
    return found


def _divergence(predictions: ArrayLike, references: Any) -> checks.Floats:
    base, _ = references.items
    divergence: checks.Floats = rel_entr(np.asarray(predictions), base).sum(axis=1)
    return divergence


@register_objective(
    "cross_entropy",
    higher_is_better=False,
    needs="probabilities",
    bounds=(0, np.inf),
    each=_surprise,
)
def cross_entropy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean negative log-probability of the true class, in nats; 0 is perfect.

    Args:
        predictions: class probabilities, shape (N, classes), rows summing to 1.
        references: true class indices, shape (N,).

    >>> round(cross_entropy([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
    0.4904
    """
    return float(_surprise(predictions, references).mean())


@register_objective(
    "expected_accuracy",
    higher_is_better=True,
    needs="probabilities",
    bounds=(0, 1),
    each=_probability,
)
def expected_accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean probability of the true class, in [0, 1]: a smooth accuracy.

    It is the expected accuracy of predictions drawn from the probabilities.

    >>> expected_accuracy([[0.5, 0.5], [0.25, 0.75]], [0, 1])
    0.625
    """
    return float(_probability(predictions, references).mean())


@register_objective("soft_f1", higher_is_better=True, needs="probabilities", bounds=(0, 1))
def soft_f1(predictions: ArrayLike, references: ArrayLike) -> float:
    """F1 of class 1 with probabilities instead of counts, in [0, 1]: a smooth F1.

    An example counts as a prediction of class 1 with its probability of class 1. For two classes,
    like F1.

    >>> round(soft_f1([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
    0.6667
    """
    probabilities, truth = checks.probabilities(predictions, references)
    if probabilities.shape[1] != 2:
        raise ValueError(f"soft_f1 is for two classes, but there are {probabilities.shape[1]}")
    predicted = probabilities[:, 1]
    total = predicted.sum() + truth.sum()
    return float(2 * (predicted * truth).sum() / total) if total else 0.0


@register_objective(
    "roc_auc",
    higher_is_better=True,
    needs="probabilities",
    bounds=(0, 1),
    piecewise_constant=True,
)
def roc_auc(predictions: ArrayLike, references: ArrayLike) -> float:
    """Probability that a class's member ranks above a non-member, in [0, 1]; 0.5 is chance.

    With two classes it is that of class 1; with more, the unweighted mean over the classes that
    occur in the references, each against the rest. Ties count half.

    Raises:
        ValueError: all references are of one class, so that there are no non-members.

    >>> roc_auc([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]], [0, 0, 1, 1])
    0.75
    """
    probabilities, truth = checks.probabilities(predictions, references)
    present = np.unique(truth)
    if present.size < 2:
        raise ValueError(
            f"all {truth.size} references are of class {present[0]}, but roc_auc compares classes: "
            "if they are a minibatch, use a larger batch_size; if they are all development or test "
            "examples, add some of another class, or choose another objective"
        )
    ranked = [1] if probabilities.shape[1] == 2 else present
    return float(np.mean([roc_auc_score(truth == k, probabilities[:, k]) for k in ranked]))


@register_objective(
    "calibration_error", higher_is_better=False, needs="probabilities", bounds=(0, 1)
)
def calibration_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean gap between confidence and accuracy, in [0, 1]: the expected calibration error (ECE).

    The confidence, which is the largest probability, falls into one of 15 bins of equal width;
    each bin's gap is weighted by its number of examples (Guo et al. 2017, arXiv 1706.04599).

    >>> round(calibration_error([[0.25, 0.75], [0.25, 0.75]], [0, 1]), 6)
    0.25
    """
    probabilities, truth = checks.probabilities(predictions, references)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    inner = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    bins = np.digitize(confidence, inner, right=True)
    gaps = np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / truth.size)


@register_objective(
    "top5_accuracy",
    higher_is_better=True,
    needs="probabilities",
    bounds=(0, 1),
    piecewise_constant=True,
    smooth="cross_entropy",
    each=_among_five,
)
def top5_accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Share of examples whose true class is among the five most probable, in [0, 1].

    Among tied classes the first one counts, as in a prediction of one class.

    Raises:
        ValueError: there are five classes or fewer, so that it would always be 1.

    >>> top5_accuracy([[0.3, 0.3, 0.1, 0.1, 0.1, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2, 0.0]], [4, 5])
    0.5
    """
    return float(_among_five(predictions, references).mean())


@register_objective(
    "kl_to_base",
    higher_is_better=False,
    needs="probabilities",
    bounds=(0, np.inf),
    from_base=True,
    each=_divergence,
)
def kl_to_base(predictions: ArrayLike, references: Any) -> float:
    """Mean KL(tuned ‖ base) of the class probabilities, in nats: how far tuning went; a penalty.

    As in ``accuracy - 0.1 * kl_to_base``. Kullback and Leibler 1951, "On information and
    sufficiency".

    Args:
        predictions: the tuned model's probabilities, shape (N, classes).
        references: the base model's probabilities are the first of its ``items``.
    """
    return float(_divergence(predictions, references).mean())
