"""Objectives for generated texts without reference texts.

Their references are the examples that the completions answer, dicts with a ``"prompt"``, and are
not used here. All are piecewise constant: a text changes only if another token becomes the most
likely. Length and repetition are best tuned together with another objective, or as a constraint:
alone they are optimal for empty texts.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoopt import register_objective
from zoopt_objectives import checks

Examples = Sequence[Mapping[str, Any]]


@register_objective(
    "words",
    higher_is_better=False,
    needs="completions",
    bounds=(0, np.inf),
    piecewise_constant=True,
)
def words(predictions: Sequence[str], references: Examples, *, target: float = 0) -> float:
    """Mean distance of the number of words, separated by white space, from a target.

    Args:
        predictions: N texts.
        references: the examples that they answer.
        target: the desired number of words; with 0, fewer are better.

    >>> words(["Yes.", "I do not know."], [{"prompt": "Is it?"}] * 2)
    2.5
    >>> words(["Yes.", "I do not know."], [{"prompt": "Is it?"}] * 2, target=3)
    1.5
    """
    completions = checks.texts(predictions, references)
    return float(np.mean([abs(len(text.split()) - target) for text in completions]))


@register_objective(
    "repetition",
    higher_is_better=False,
    needs="completions",
    bounds=(0, 1),
    piecewise_constant=True,
)
def repetition(predictions: Sequence[str], references: Examples) -> float:
    """Share of three-word sequences that occurred before in their text, in [0, 1]; 0 is best.

    The mean over the texts; a text of fewer than four words repeats nothing.

    >>> repetition(["so it is so it is", "so it is"], [{"prompt": "Is it?"}] * 2)
    0.125
    """
    return float(np.mean([_repeated(text) for text in checks.texts(predictions, references)]))


@register_objective(
    "vader",
    higher_is_better=True,
    needs="completions",
    bounds=(-1, 1),
    piecewise_constant=True,
)
def vader(predictions: Sequence[str], references: Examples) -> float:
    """Mean sentiment of English texts by VADER's word list, from -1 (bad) to 1 (good).

    The compound score of Hutto & Gilbert 2014. It needs ``pip install "zoopt-torch[text]"``.

    >>> round(vader(["I love it!", "It is a table."], [{"prompt": "Well?"}] * 2), 4)
    0.3348
    """
    completions = checks.texts(predictions, references)
    analyzer = _vader_analyzer()
    return float(np.mean([analyzer.polarity_scores(text)["compound"] for text in completions]))


def _repeated(text: str) -> float:
    found = text.split()
    runs = list(zip(found, found[1:], found[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@functools.cache
def _vader_analyzer() -> Any:
    with checks.text_extra("vader"):
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    return SentimentIntensityAnalyzer()
