"""Objectives for numbers: predicted values against true values, both of shape (N,).

The rank correlations are piecewise constant: they change only if two predictions swap places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau, pearsonr, spearmanr

from zoopt import register_objective
from zoopt_objectives import checks


def _squared(predictions: ArrayLike, references: ArrayLike) -> checks.Floats:
    guess, truth = checks.values(predictions, references)
    return (truth - guess) ** 2


def _absolute(predictions: ArrayLike, references: ArrayLike) -> checks.Floats:
    guess, truth = checks.values(predictions, references)
    return np.abs(truth - guess)


@register_objective(
    "mse", higher_is_better=False, needs="values", bounds=(0, np.inf), each=_squared
)
def mse(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean squared error, in squared units of the target; 0 is perfect.

    >>> mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    return float(_squared(predictions, references).mean())


@register_objective(
    "mae", higher_is_better=False, needs="values", bounds=(0, np.inf), each=_absolute
)
def mae(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean absolute error, in units of the target; 0 is perfect.

    >>> mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    return float(_absolute(predictions, references).mean())


@register_objective("pearson", higher_is_better=True, needs="values", bounds=(-1, 1))
def pearson(predictions: ArrayLike, references: ArrayLike) -> float:
    """Pearson's linear correlation, in [-1, 1]; 0 if either side is constant.

    >>> round(pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
    1.0
    """
    guess, truth = checks.values(predictions, references)
    return 0.0 if _constant(guess, truth) else float(pearsonr(guess, truth)[0])


@register_objective(
    "spearman", higher_is_better=True, needs="values", bounds=(-1, 1), piecewise_constant=True
)
def spearman(predictions: ArrayLike, references: ArrayLike) -> float:
    """Spearman's rank correlation, in [-1, 1]; 0 if either side is constant.

    >>> round(spearman([1.0, 2.0, 9.0], [0.0, 5.0, 6.0]), 6)
    1.0
    """
    guess, truth = checks.values(predictions, references)
    return 0.0 if _constant(guess, truth) else float(spearmanr(guess, truth)[0])


@register_objective(
    "kendall", higher_is_better=True, needs="values", bounds=(-1, 1), piecewise_constant=True
)
def kendall(predictions: ArrayLike, references: ArrayLike) -> float:
    """Kendall's rank correlation τ-b, in [-1, 1]; 0 if either side is constant.

    Pairs in the same order minus pairs in opposite order, over all pairs, corrected for ties.

    >>> round(kendall([1.0, 2.0, 9.0], [0.0, 6.0, 5.0]), 6)
    0.333333
    """
    guess, truth = checks.values(predictions, references)
    return 0.0 if _constant(guess, truth) else float(kendalltau(guess, truth)[0])


def _constant(*samples: checks.Floats) -> bool:
    """Whether a sample is constant, so that its correlation is undefined."""
    return any(np.ptp(sample) == 0 for sample in samples)
