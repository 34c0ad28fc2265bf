"""The built-in objectives against formulas written out by hand, and their place in the registry."""

import numpy as np
import pytest

import zoopt

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 200)
GUESS = np.where(RNG.random(200) < 0.6, TRUTH, RNG.integers(0, 3, 200))
VALUES, TARGETS = RNG.normal(size=50), RNG.normal(size=50)


def f1_of(k, guess, truth):
    hit = ((guess == k) & (truth == k)).sum()
    return 2 * hit / ((guess == k).sum() + (truth == k).sum())


def ranks(values):
    return np.argsort(np.argsort(values))


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


BY_HAND = {
    "accuracy": lambda p, r: (p == r).mean(),
    "balanced_accuracy": lambda p, r: np.mean([(p[r == k] == k).mean() for k in range(3)]),
    "f1_macro": lambda p, r: np.mean([f1_of(k, p, r) for k in range(3)]),
    "f1_micro": lambda p, r: (p == r).mean(),
    "f1_weighted": lambda p, r: sum((r == k).mean() * f1_of(k, p, r) for k in range(3)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_class_objectives_match_their_formulas(name):
    assert zoopt.get_objective(name)(GUESS, TRUTH) == pytest.approx(BY_HAND[name](GUESS, TRUTH))


def test_binary_f1_is_of_class_one():
    guess, truth = GUESS > 0, TRUTH > 0
    assert zoopt.get_objective("f1")(guess.astype(int), truth.astype(int)) == pytest.approx(
        f1_of(True, guess, truth)
    )


def test_cross_entropy_is_the_mean_negative_log_probability():
    probabilities = RNG.dirichlet([1, 1, 1], 200)
    expected = -np.log(probabilities[np.arange(200), TRUTH]).mean()
    assert zoopt.get_objective("cross_entropy")(probabilities, TRUTH) == pytest.approx(expected)


def test_cross_entropy_resolves_differences_far_below_float32():
    probabilities = np.tile([0.5, 0.5], (4, 1))
    moved = probabilities + np.array([1e-10, -1e-10])
    metric = zoopt.get_objective("cross_entropy")
    difference = metric(moved, [1] * 4) - metric(probabilities, [1] * 4)
    assert difference == pytest.approx(2e-10, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", ((VALUES - TARGETS) ** 2).mean()),
        ("pearson", correlation(VALUES, TARGETS)),
        ("spearman", correlation(ranks(VALUES), ranks(TARGETS))),
    ],
)
def test_value_objectives_match_their_formulas(name, expected):
    assert zoopt.get_objective(name)(VALUES, TARGETS) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlation_with_a_constant_is_no_association(name):
    assert zoopt.get_objective(name)(np.ones(5), np.arange(5)) == 0.0


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1", "f1_macro"])
def test_minibatches_of_one_class_are_scored_without_warnings(name):
    assert 0.0 <= zoopt.get_objective(name)([0, 1, 0], [0, 0, 0]) <= 1.0


@pytest.mark.parametrize("name", zoopt.list_objectives())
def test_every_objective_says_which_way_is_better_and_documents_itself(name):
    metric = zoopt.get_objective(name)
    assert isinstance(metric.higher_is_better, bool)
    assert metric.higher_is_better == (name not in ("cross_entropy", "mse"))
    assert metric.function.__doc__
