"""The course of a run: the steps and evaluations that its lines of metrics tell of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zoopt.tuning.folder.scores import best_of


class Course:
    """Steps and evaluations without those rolled back.

    Args:
        entries: lines of ``metrics.jsonl``.

    Attributes:
        steps: the lines of steps, by number of updates after the step.
        evaluations: development scores (None without development examples), sorted by number of
            updates.

    Example:
        >>> lines = [{"step": 0, "dev": 0.5}, {"step": 9, "dev": 0.1}, {"step": 2, "rollback": {}}]
        >>> Course(lines).evaluations
        {0: 0.5}
    """

    def __init__(self, entries: Iterable[dict[str, Any]] = ()) -> None:
        self.steps: dict[int, dict[str, Any]] = {}
        self.evaluations: dict[int, float | None] = {}
        for entry in entries:
            self.follow(entry)

    def follow(self, entry: dict[str, Any]) -> None:
        """Takes the next line."""
        step = entry["step"]
        if "value" in entry:
            self.steps[step] = entry
        if "dev" in entry:
            scored = self.evaluations | {step: entry["dev"]}
            self.evaluations = dict(sorted(scored.items()))  # one may be repeated later
        if "rollback" in entry:
            self.steps = {k: v for k, v in self.steps.items() if k <= step}
            self.evaluations = {k: v for k, v in self.evaluations.items() if k <= step}

    def best_step(self, higher_is_better: bool) -> int | None:
        """The step of the best evaluation; see :func:`best_of`."""
        return best_of(self.evaluations, higher_is_better)
