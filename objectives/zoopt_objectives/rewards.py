r"""Objectives for generated texts without references: completions, judged for what they are.

Their references are the examples that the completions answer, dicts with a ``"prompt"``, and the
ones here do not look at them. All are piecewise constant: a text changes only where another token
wins. Lengths and repetition are best tuned beside another objective, or as a check on one: alone
they are satisfied by saying nothing.

``format_match`` and ``keywords`` make rewards for a pattern or for words, to register under a name
of one's own::

    zoopt.register_objective(
        "json_object", higher_is_better=True, needs="completions", piecewise_constant=True
    )(format_match(r"\s*{.*}\s*"))
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoopt import register_objective
from zoopt_objectives import checks

Examples = Sequence[Mapping[str, Any]]
Reward = Callable[[Sequence[str], Examples], float]


@register_objective(
    "words",
    higher_is_better=False,
    needs="completions",
    bounds=(0, np.inf),
    piecewise_constant=True,
)
def words(predictions: Sequence[str], references: Examples) -> float:
    """Mean number of words, as white space parts them; fewer are better.

    >>> words(["Yes.", "I do not know."], [{"prompt": "Is it?"}] * 2)
    2.5
    """
    completions = checks.texts(predictions, references)
    return float(np.mean([len(text.split()) for text in completions]))


@register_objective(
    "repetition",
    higher_is_better=False,
    needs="completions",
    bounds=(0, 1),
    piecewise_constant=True,
)
def repetition(predictions: Sequence[str], references: Examples) -> float:
    """Share of runs of three words that occurred before in their text, in [0, 1]; 0 is best.

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


def format_match(pattern: str | re.Pattern[str]) -> Reward:
    r"""A reward for a format: the share of completions that a pattern matches from end to end.

    Args:
        pattern: a regular expression; compile it to set flags, as :data:`re.DOTALL` for a ``.``
            that matches the ends of lines too.

    Returns:
        A function ``(predictions, references) -> float`` in [0, 1], not registered yet.

    >>> number = format_match(r"-?\d+")
    >>> number(["42", "It is 42"], [{"prompt": "6 * 7?"}] * 2)
    0.5
    """
    compiled = re.compile(pattern)
    return _share(
        lambda text: compiled.fullmatch(text) is not None,
        f"format_match({compiled.pattern!r})",
        f"Share of completions that {compiled.pattern!r} matches from end to end, in [0, 1].",
    )


def keywords(words: Iterable[str]) -> Reward:
    """A reward for words: the share of completions that contain any of them.

    Args:
        words: what to look for, as whole words or phrases, in upper or lower case.

    Returns:
        A function ``(predictions, references) -> float`` in [0, 1], not registered yet.

    >>> polite = keywords(["please", "thank you"])
    >>> polite(["Thank you!", "Now.", "Pleased."], [{"prompt": "Tea?"}] * 3)
    0.3333333333333333
    """
    wanted = [words] if isinstance(words, str) else list(words)
    if not all(wanted) or not wanted:
        raise ValueError(f"keywords {wanted}: there has to be a word, and none may be empty")
    either = "|".join(map(re.escape, wanted))
    compiled = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
    return _share(
        lambda text: compiled.search(text) is not None,
        f"keywords({wanted!r})",
        f"Share of completions that contain any of {', '.join(map(repr, wanted))}, in [0, 1].",
    )


def _share(holds: Callable[[str], bool], name: str, about: str) -> Reward:
    """The share of completions of which something holds, as a function that says what it is."""

    def reward(predictions: Sequence[str], references: Examples) -> float:
        return float(np.mean([holds(text) for text in checks.texts(predictions, references)]))

    reward.__name__ = reward.__qualname__ = name
    reward.__doc__ = about
    return reward


def _repeated(text: str) -> float:
    found = text.split()
    runs = list(zip(found, found[1:], found[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@functools.cache
def _vader_analyzer() -> Any:
    with checks.text_extra("vader"):
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    return SentimentIntensityAnalyzer()
