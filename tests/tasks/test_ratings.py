"""Pairs that people prefer, and how far they agree, against counting by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest

import zoopt


@pytest.fixture
def ratings():
    rng = np.random.default_rng(0)
    rows = [
        {"item": f"{group}{item}", "rater": rater, "score": rng.integers(0, 4), "group": group}
        for group in "xy"
        for item in range(3)
        for rater in range(5)
        if (group, item, rater) != ("x", 1, 4)  # one did not score everything
    ]
    return pd.DataFrame(rows)


def votes(ratings, a, b):
    scores = {
        (item, rater): score
        for item, rater, score in ratings[["item", "rater", "score"]].itertuples(index=False)
    }
    both = [r for r in range(5) if (a, r) in scores and (b, r) in scores]
    return [np.sign(scores[a, r] - scores[b, r]) for r in both]


def test_pairs_are_within_groups_and_their_share_is_that_of_strict_judgements(ratings):
    items = {name: name for name in ratings["item"]}
    pairs = zoopt.preferences(ratings, items)
    assert len(pairs) == 6
    for pair in pairs:
        assert pair["chosen"][0] == pair["rejected"][0] == pair["group"]
        said = votes(ratings, pair["chosen"], pair["rejected"])
        wins, losses = said.count(1), said.count(-1)
        assert pair["share"] == wins / (wins + losses) >= 0.5
        assert pair["weight"] == wins + losses


def test_agreement_is_that_of_all_pairs_of_people(ratings):
    agreed = []
    for group in "xy":
        for a, b in itertools.combinations([f"{group}{i}" for i in range(3)], 2):
            strict = [v for v in votes(ratings, a, b) if v]
            agreed += [u == v for u, v in itertools.combinations(strict, 2)]
    assert zoopt.agreement(ratings) == pytest.approx(np.mean(agreed))


def test_ratings_may_be_rows(ratings):
    items, rows = {name: name for name in ratings["item"]}, ratings.to_dict("records")
    assert zoopt.preferences(rows, items) == zoopt.preferences(ratings, items)
    assert zoopt.agreement(iter(rows)) == zoopt.agreement(ratings)


def test_a_pair_that_nobody_tells_apart_is_left_out():
    table = pd.DataFrame({"item": ["a", "b"], "rater": 0, "score": 2, "group": 0})
    assert zoopt.preferences(table, {"a": 1, "b": 2}) == []
    with pytest.raises(ValueError, match="no two people"):
        zoopt.agreement(table)


def test_what_is_missing_is_named(ratings):
    with pytest.raises(KeyError, match="no column 'rater'"):
        zoopt.agreement(ratings.drop(columns="rater"))
    with pytest.raises(KeyError, match="but items does not"):
        zoopt.preferences(ratings, {"x0": 1})
