"""Objectives for numbers: predicted values against true values, both of shape (N,)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_squared_error

from zoopt import register_objective


@register_objective("mse", higher_is_better=False, needs="values")
def mse(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean squared error, in squared units of the target; 0 is perfect.

    >>> mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    return float(mean_squared_error(references, predictions))


@register_objective("pearson", higher_is_better=True, needs="values")
def pearson(predictions: ArrayLike, references: ArrayLike) -> float:
    """Pearson's linear correlation, in [-1, 1]; 0 where either side is constant.

    >>> round(pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
    1.0
    """
    return (
        0.0 if _constant(predictions, references) else float(pearsonr(predictions, references)[0])
    )


@register_objective("spearman", higher_is_better=True, needs="values")
def spearman(predictions: ArrayLike, references: ArrayLike) -> float:
    """Spearman's rank correlation, in [-1, 1]; 0 where either side is constant.

    >>> round(spearman([1.0, 2.0, 9.0], [0.0, 5.0, 6.0]), 6)
    1.0
    """
    if _constant(predictions, references):
        return 0.0
    return float(spearmanr(predictions, references)[0])


def _constant(*samples: ArrayLike) -> bool:
    """A correlation with a constant is undefined; there is no association to report."""
    return any(np.ptp(np.asarray(sample, dtype=np.float64)) == 0 for sample in samples)
