"""Objectives for classes. Class indices, or class probabilities, against true class indices.

Most are piecewise constant: they have no gradient, and probes differ only if a predicted class
changes, so they need larger batches and a larger ε. Cross-entropy, expected accuracy and soft F1
are smooth; tune the last two instead of accuracy or F1 if their probes come out equal.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr
from sklearn.metrics import roc_auc_score

from zoopt import register_objective
from zoopt_objectives import checks

CALIBRATION_BINS = 15


def _right(predictions: ArrayLike, references: ArrayLike) -> NDArray[np.bool_]:
    guess, truth = checks.labels(predictions, references)
    right: NDArray[np.bool_] = guess == truth
    return right


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
            "use larger batches, or stratified ones"
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
