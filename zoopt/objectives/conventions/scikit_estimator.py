"""Estimators for scikit-learn's scorers that return scores computed before.

A separate module, because it imports scikit-learn, which most runs do not need.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose inputs are row numbers of class scores."""

    def __init__(self, scores: NDArray[Any]) -> None:
        self.scores = scores
        self.classes_ = np.arange(scores.shape[1])

    def _rows(self, X: ArrayLike) -> NDArray[Any]:
        rows: NDArray[Any] = self.scores[np.asarray(X).ravel()]
        return rows

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The class with the highest score; the first one of several."""
        labels: NDArray[Any] = np.argmax(self._rows(X), axis=1)
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Softmax of the scores."""
        chances: NDArray[Any] = softmax(self._rows(X), axis=1)
        return chances

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """The scores; for two classes, the score of class 1 minus that of class 0."""
        rows = self._rows(X)
        return rows[:, 1] - rows[:, 0] if rows.shape[1] == 2 else rows


class Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted regressor whose inputs are row numbers of values."""

    def __init__(self, scores: NDArray[Any]) -> None:
        self.scores = scores
        self.fitted_ = True

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The values."""
        rows: NDArray[Any] = self.scores[np.asarray(X).ravel()]
        return rows
