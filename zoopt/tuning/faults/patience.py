"""Early stopping when the development score no longer improves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoopt.tuning.callbacks import Callback
from zoopt.tuning.folder.scores import best_of


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
        scores = self._evaluations()
        scored = [step for step, score in scores.items() if score is not None]
        best = best_of(scores, self._higher_is_better)
        if best is None or not self._patience:
            return {}
        if sum(step > best for step in scored) < self._patience:
            return {}
        return {"patience": f"no better development score since step {best}"}
