"""The calibrated baseline: class offsets chosen on training examples, without tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoopt.tasks import Example, Scores, Task


def calibrating(task: Task, most: int) -> Sequence[Example]:
    """The training examples that set a task's class offsets; none if it has no use for offsets.

    Args:
        task: provides the examples.
        most: the number of examples, if there are as many.
    """
    if not (task.labels and task.test):
        return ()
    return [task.train[i] for i in range(min(len(task.train), most))]


def class_offsets(scores: Scores, references: NDArray[Any]) -> NDArray[np.float64]:
    """Offsets to add to the class logits that maximize the accuracy on this sample.

    For two classes this is the best threshold. For more, coordinate ascent: the offset of one class
    at a time is set to the best cut between the sample's margins, until none improves.

    Args:
        scores: class logits, shape (N, classes).
        references: true class indices, shape (N,).

    Returns:
        The offsets, shape (classes,); the first is 0.

    Example:
        >>> logits = np.array([[1.0, 0.0], [1.0, 0.2], [1.0, 0.6], [1.0, 0.8]])
        >>> offsets = class_offsets(logits, np.array([0, 0, 1, 1]))
        >>> (logits + offsets).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    offsets = np.zeros(scores.shape[1])
    best = -1.0
    while True:
        before = best
        for k in range(1, scores.shape[1]):
            for cut in sorted({0.0, _best_cut(scores + offsets, scores[:, k], k, references)}):
                trial = offsets.copy()
                trial[k] = cut
                right = float(((scores + trial).argmax(axis=1) == references).mean())
                if right > best:
                    best, offsets = right, trial
        if best <= before:
            return offsets


def _best_cut(shifted: Scores, plain: Scores, k: int, references: NDArray[Any]) -> float:
    """The most accurate offset of class k, halfway between two margins of the sample.

    An example is assigned to class k if its margin, of the best other class over k, is below the
    offset. Returns 0 if all margins are equal. Examples without this choice, whose score is -inf,
    are never assigned to it.
    """
    others = np.delete(shifted, k, axis=1)
    rival = others.argmax(axis=1)
    margins = others.max(axis=1) - plain
    order = np.argsort(margins)
    gained = (references == k) * 1 - (references == rival + (rival >= k))
    low, high = margins[order][:-1], margins[order][1:]
    between = np.flatnonzero((low < high) & np.isfinite(low) & np.isfinite(high))
    if not between.size:
        return 0.0
    best = between[np.cumsum(gained[order])[between].argmax()]
    return float((low[best] + high[best]) / 2)
