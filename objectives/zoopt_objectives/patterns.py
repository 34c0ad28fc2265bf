"""Objectives that search generated texts for a format, words, or insults.

Each is the share of completions in which it is found. What to search for is an argument, in a
config file ``objective: "format_match(pattern='[A-Z].*')"``, in Python also
``zoopt.get_objective("format_match", pattern=re.compile(...))``. References are the examples that
the completions answer, and are not used. All are piecewise constant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoopt import register_objective
from zoopt_objectives import checks

Examples = Sequence[Mapping[str, Any]]

INSULTS = (
    *("damn", "dumb", "dumber", "dumbest", "fool", "fools", "idiot", "idiotic", "idiots", "jerk"),
    *("jerks", "loser", "losers", "moron", "moronic", "morons", "pathetic", "scum", "stupid"),
    *("stupidity", "worthless", "crap", "hate you", "hate them", "shut up", "go away", "screw you"),
)
"""Impolite words: a short and mild list, for English."""


@register_objective(
    "format_match",
    higher_is_better=True,
    needs="completions",
    bounds=(0, 1),
    piecewise_constant=True,
)
def format_match(
    predictions: Sequence[str], references: Examples, *, pattern: str | re.Pattern[str]
) -> float:
    r"""Share of completions that a regular expression matches as a whole, in [0, 1].

    Args:
        predictions: N texts.
        references: the examples that they answer.
        pattern: the regular expression; with ``(?s)`` before it, ``.`` also matches newlines.

    >>> format_match(["42", "It is 42"], [{"prompt": "6 * 7?"}] * 2, pattern=r"-?\d+")
    0.5
    """
    if not isinstance(pattern, str | re.Pattern):
        raise TypeError(f"format_match: pattern={pattern!r} is not a regular expression: quote it")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"format_match: pattern={pattern!r} is invalid: {error}") from None
    return _share(predictions, references, compiled.fullmatch)


@register_objective(
    "keywords",
    higher_is_better=True,
    needs="completions",
    bounds=(0, 1),
    piecewise_constant=True,
)
def keywords(
    predictions: Sequence[str], references: Examples, *, words: str | Iterable[str]
) -> float:
    """Share of completions that contain any of the given words, in [0, 1].

    Args:
        predictions: N texts.
        references: the examples that they answer.
        words: the words or phrases to search for, as a whole, ignoring case.

    >>> tea = [{"prompt": "Tea?"}] * 3
    >>> keywords(["Thank you!", "Now.", "Pleased."], tea, words=["please", "thank you"])
    0.3333333333333333
    """
    return _share(predictions, references, _any_of("keywords", words).search)


@register_objective(
    "toxicity",
    higher_is_better=False,
    needs="completions",
    bounds=(0, 1),
    piecewise_constant=True,
)
def toxicity(
    predictions: Sequence[str], references: Examples, *, words: str | Iterable[str] = ()
) -> float:
    """Share of completions that contain a word from a list of insults, in [0, 1]; 0 is best.

    A word list detects words, not meaning: it misses irony, and counts quotations.

    Args:
        predictions: N texts.
        references: the examples that they answer.
        words: your own words, in addition to :data:`INSULTS`, a short, mild and English list.

    >>> who = [{"prompt": "Who am I?"}] * 2
    >>> toxicity(["You are a fool.", "You nincompoop!"], who)
    0.5
    >>> toxicity(["You are a fool.", "You nincompoop!"], who, words=["nincompoop"])
    1.0
    """
    return _share(predictions, references, _any_of("toxicity", words, INSULTS).search)


def _any_of(name: str, words: str | Iterable[str], more: Sequence[str] = ()) -> re.Pattern[str]:
    """A pattern that finds any of the words or phrases, as a whole, ignoring case."""
    if not isinstance(words, Iterable):
        raise TypeError(f"{name}: words is {words!r}; expected a text, or a list of texts")
    own = [words] if isinstance(words, str) else list(words)
    for word in own:
        if not isinstance(word, str):
            raise TypeError(f"{name}: {word!r} among words is not a text: put it in quotes")
    if not all(own) or not (own or more):
        raise ValueError(f"{name}: words is {own}; expected at least one word, none empty")
    either = "|".join(map(re.escape, [*more, *own]))
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)


def _share(predictions: Sequence[str], references: Examples, found: Callable[[str], Any]) -> float:
    """The share of completions in which something is found."""
    return float(np.mean([bool(found(text)) for text in checks.texts(predictions, references)]))
