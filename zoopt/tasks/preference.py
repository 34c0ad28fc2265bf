"""Preference: which of two items (texts, images or anything else) people prefer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoopt.support.names import nearest
from zoopt.tasks.base import Scores, Task
from zoopt.tasks.examples import Example

JUDGED = np.dtype([("share", np.float64), ("weight", np.float64)])
"""References of metrics of margins: the share of judgements for the chosen one, and the pair's
weight."""


class Preference(Task):
    """Pairs that people compared; the prediction is the margin score(chosen) − score(rejected).

    An example is ``{"chosen": item, "rejected": item}``, each item in the form that ``scorer``
    takes. Optional keys: ``"share"``, the fraction of judgements for the chosen item, in [0, 1]
    (default 1; 0.5 is a tie); ``"weight"`` of the pair, above 0 (default 1); ``"group"``: pairs of
    one group, for example about one document, are resampled together for confidence intervals.
    :func:`zoopt.preferences` makes such pairs from ratings.

    Args:
        scorer: a task whose model output gives the score of an item: one value, or the logits of
            two classes, whose difference (last minus first) is the score.
            :class:`zoopt.MultipleChoice` with items as its rows scores by a language model's
            log-probability.
        train: pairs that minibatches are drawn from.
        dev: pairs for choosing the best checkpoint.
        test: pairs used only in the report.
        batch_size: items in one forward.

    Raises:
        KeyError: a pair lacks an item, or a group although others of its split have one, or has a
            misspelled key.
        ValueError: a share or a weight is out of range.

    Example:
        >>> import torch, zoopt
        >>> collate = lambda items: torch.tensor([[item["x"]] for item in items])
        >>> scorer = zoopt.Regression([{"x": 0.0}], collate=collate, target="")
        >>> pairs = [{"chosen": {"x": 3.0}, "rejected": {"x": 1.0}}]
        >>> task = zoopt.Preference(scorer, pairs)
        >>> task.predict(torch.nn.Linear(1, 1, bias=False).requires_grad_(False), pairs).shape
        (1,)
    """

    gives = "margins"
    metric = "win_rate"

    def __init__(
        self,
        scorer: Task,
        train: Sequence[Example],
        dev: Sequence[Example] = (),
        test: Sequence[Example] = (),
        *,
        batch_size: int = 32,
    ) -> None:
        super().__init__(train, dev, test, target="", batch_size=batch_size)
        for split, pairs in (("train", self.train), ("dev", self.dev), ("test", self.test)):
            grouped = any("group" in pair for pair in pairs)
            for number, pair in enumerate(pairs):
                _check(pair, f"{split} pair {number}", grouped)
        self.scorer = scorer

    def rows(self, example: Example) -> Sequence[Example]:
        """The chosen item and the rejected one."""
        return example["chosen"], example["rejected"]

    def length(self, example: Example) -> int:
        """The length of an item, from the scorer."""
        return self.scorer.length(example)

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Scores of items, shape (R,)."""
        out = self.scorer.forward(model, examples)
        if out.ndim == 2:
            if out.shape[1] != 2:
                raise ValueError(
                    f"the scorer gives {out.shape[1]} numbers per item; expected one, or the "
                    "logits of two classes"
                )
            out = out[:, 1] - out[:, 0]
        return out

    def joined(self, said: Scores, examples: Sequence[Example]) -> Scores:
        """Margins, shape (K, N)."""
        margins: Scores = said[:, 0::2] - said[:, 1::2]
        return margins

    def references(self, examples: Sequence[Example]) -> NDArray[Any]:
        """Share and weight of each pair, of dtype :data:`JUDGED`, shape (N,)."""
        rows = [(pair.get("share", 1.0), pair.get("weight", 1.0)) for pair in examples]
        return np.array(rows, dtype=JUDGED)

    def clusters(self, examples: Sequence[Mapping[str, Any]]) -> NDArray[Any] | None:
        """The group of each pair, if they have one."""
        if not examples or "group" not in examples[0]:
            return None
        return np.unique([str(pair["group"]) for pair in examples], return_inverse=True)[1]


def _check(pair: Example, which: str, grouped: bool) -> None:
    """Raises if a pair's keys or values are invalid."""
    if not {"chosen", "rejected"} <= set(pair):
        raise KeyError(
            f"{which} has {', '.join(map(repr, pair))}; expected 'chosen' and 'rejected', each an "
            "item as the scorer takes it"
        )
    absent = {"share", "weight", "group"} - set(pair)
    for key in pair:
        if near := nearest(str(key).lower(), absent, similarity=0.85):
            raise KeyError(f"{which} has the unknown key {key!r}: did you mean {near!r}?")
    if grouped and "group" in absent:
        raise KeyError(
            f"{which} has no 'group', but others have: give one to each, or to none; a pair that "
            "depends on no other is its own group"
        )
    if not 0 <= _number(pair, "share") <= 1:
        raise ValueError(
            f"{which} has share {pair['share']!r}; expected the fraction of judgements for the "
            "chosen item, from 0 to 1"
        )
    if not 0 < _number(pair, "weight") < math.inf:
        raise ValueError(
            f"{which} has weight {pair['weight']!r}; expected a positive number: leave out pairs "
            "that should not count"
        )


def _number(pair: Example, key: str) -> float:
    """A share or weight, 1 if a pair does not have it, NaN if it is not a number."""
    try:
        return float(pair.get(key, 1.0))
    except (TypeError, ValueError):
        return math.nan
