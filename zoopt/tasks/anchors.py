"""Anchors: the outputs of a base model, which an objective compares a tuned model's with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoopt.tasks.examples import Drawn


class Anchors:
    """A base model's outputs by split, and within it by the example's place.

    Example:
        >>> split, anchors = ["a", "b", "c"], Anchors()
        >>> anchors.keep(split, np.array([0.1, 0.2, 0.3]))
        >>> anchors.of(Drawn(split, [2, 0])).tolist()
        [0.3, 0.1]
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Sequence[Any], dict[int, Any]]] = []

    def keep(self, examples: Sequence[Any], outputs: NDArray[Any]) -> None:
        """Stores the outputs on these examples, in their order."""
        split, places = _origin(examples)
        kept = self._of_split(split)
        if kept is None:
            kept = {}
            self._kept.append((split, kept))
        kept.update(zip(places, outputs, strict=True))

    def of(self, examples: Sequence[Any]) -> NDArray[Any]:
        """The outputs on these examples, in their order.

        Raises:
            ValueError: there is none for one of them.
        """
        split, places = _origin(examples)
        kept = self._of_split(split)
        if kept is None or not all(place in kept for place in places):
            raise ValueError(
                f"the objective compares with a base model's outputs on {len(examples)} examples, "
                "but not all of these are stored: call task.anchor(model, examples) first. If "
                "they are a part of examples that were anchored, draw them with "
                "zoopt.tasks.Drawn(examples, indices)"
            )
        return np.stack([kept[place] for place in places])

    def _of_split(self, split: Sequence[Any]) -> dict[int, Any] | None:
        """What is stored of a split, which is the same object each time it is asked for."""
        return next((kept for one, kept in self._kept if one is split), None)


def _origin(examples: Sequence[Any]) -> tuple[Sequence[Any], Sequence[int]]:
    """The split that examples are from, and their places in it."""
    if isinstance(examples, Drawn):
        return examples.split, examples.places
    return examples, range(len(examples))
