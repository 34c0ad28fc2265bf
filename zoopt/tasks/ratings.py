"""Recorded human ratings: the preferences they express, and inter-rater agreement."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from itertools import combinations
from typing import Any

import pandas as pd

COLUMNS = ("item", "rater", "score", "group")


def preferences(
    ratings: Any,
    items: Mapping[Hashable, Any],
    *,
    weights: Mapping[Hashable, float] | None = None,
) -> list[dict[str, Any]]:
    """Pairs of a preferred and a rejected item, derived from scores that people gave.

    Within a group, a rater who scored one item higher than another prefers it. All judgements on
    two items become one pair: the item preferred more often is ``chosen``, ``share`` is its share
    of the judgements that are not ties, and ``weight`` is their total weight. Two items on which
    nobody has a preference give no pair.

    Args:
        ratings: one row per score, with columns ``item``, ``rater``, ``score`` and ``group``: a
            ``pandas.DataFrame``, or its argument, such as a list of dicts. Only items of one group
            are compared, such as the summaries of one document.
        items: maps each item's name to the item in the form that the task's scorer takes.
        weights: the weight of each rater's judgements; 1 if not given.

    Raises:
        KeyError: a column or an item is missing.

    Example:
        >>> table = pd.DataFrame(
        ...     [["a", "Ann", 3, 0], ["b", "Ann", 1, 0], ["a", "Bob", 2, 0], ["b", "Bob", 4, 0]],
        ...     columns=["item", "rater", "score", "group"],
        ... )
        >>> (pair,) = preferences(table, {"a": "text A", "b": "text B"}, weights={"Ann": 3})
        >>> pair["chosen"], pair["share"], pair["weight"]
        ('text A', 0.75, 4.0)
    """
    pairs = []
    for group, a, b, votes in _votes(ratings):
        for item in (a, b):
            if item not in items:
                raise KeyError(f"the ratings have item {item!r}, but items does not: add it")
        counted = [(vote, (weights or {}).get(rater, 1.0)) for rater, vote in votes if vote]
        total = float(sum(weight for _, weight in counted))
        if total == 0:
            continue
        share = sum(weight for vote, weight in counted if vote > 0) / total
        chosen, rejected = (a, b) if share >= 0.5 else (b, a)
        pairs.append(
            {
                "chosen": items[chosen],
                "rejected": items[rejected],
                "share": max(share, 1 - share),
                "weight": total,
                "group": group,
            }
        )
    return pairs


def agreement(ratings: Any) -> float:
    """Inter-rater agreement: how often two people who both have a preference on a pair agree.

    Over all pairs of items in a group and all pairs of people: the reference for a model's
    agreement with people.

    Args:
        ratings: as for :func:`preferences`.

    Raises:
        ValueError: no two people compared the same items.

    Example:
        >>> table = pd.DataFrame(
        ...     {
        ...         "item": ["a", "b"] * 3,
        ...         "rater": ["Ann", "Ann", "Bob", "Bob", "Cy", "Cy"],
        ...         "score": [3, 1, 2, 4, 4, 1],
        ...         "group": 0,
        ...     }
        ... )
        >>> round(agreement(table), 3)
        0.333
    """
    same = every = 0
    for _, _, _, votes in _votes(ratings):
        up, down = (sum(vote == side for _, vote in votes) for side in (1, -1))
        same += up * (up - 1) + down * (down - 1)
        every += (up + down) * (up + down - 1)
    if not every:
        raise ValueError("no two people have preferences on the same two items of a group")
    return same / every


def _votes(
    ratings: Any,
) -> Iterator[tuple[Hashable, Hashable, Hashable, list[tuple[Hashable, int]]]]:
    """(group, a, b, votes): for each rater of both items 1 for a, -1 for b, 0 for a tie."""
    ratings = pd.DataFrame(ratings)
    missing = [name for name in COLUMNS if name not in ratings]
    if missing:
        raise KeyError(
            f"the ratings have no column {', '.join(map(repr, missing))}; they have "
            f"{', '.join(map(repr, ratings.columns))}"
        )
    for group, rows in ratings.groupby("group", sort=False):
        table = rows.pivot_table(index="item", columns="rater", values="score", sort=False)
        for a, b in combinations(table.index, 2):
            difference = (table.loc[a] - table.loc[b]).dropna()
            votes = [(who, int(d > 0) - int(d < 0)) for who, d in difference.items()]
            yield group, a, b, votes
