"""Early stopping when the development score no longer improves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoopt.tuning.callbacks import Callback
from zoopt.tuning.folder.scores import worth


class Patience(Callback):
    """Ends a run after a number of consecutive evaluations without improvement.

    All recorded evaluations are considered, so that a resumed run stops where the uninterrupted
    one would have.

    Args:
        evaluations: returns the development scores so far, by step.
        patience: number of evaluations without improvement; 0 never ends a run.
        higher_is_better: whether higher scores are better.

    Example:
        >>> scores = {0: 0.5, 10: 0.7, 20: 0.6, 30: 0.7}
        >>> Patience(lambda: scores, 2, higher_is_better=True).stop()
        {'patience': 'no better development score since step 10'}
        >>> Patience(lambda: scores, 3, higher_is_better=True).stop()
        {}
    """

    def __init__(
        self,
        evaluations: Callable[[], Mapping[int, float | None]],
        patience: int,
        higher_is_better: bool,
    ) -> None:
        self._evaluations, self._patience = evaluations, patience
        self._higher_is_better = higher_is_better

    def stop(self) -> dict[str, Any]:
        """Returns the step of the last improvement if it is too long ago, else {}."""
        scores = [
            (step, worth(score, self._higher_is_better))
            for step, score in self._evaluations().items()
            if score is not None
        ]
        if not self._patience or len(scores) <= self._patience:
            return {}
        best, (step, _) = max(enumerate(scores), key=lambda each: each[1][1])
        if len(scores) - 1 - best < self._patience:
            return {}
        return {"patience": f"no better development score since step {step}"}
