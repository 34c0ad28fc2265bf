"""The built-in objectives against formulas written out by hand, and their place in the registry."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef, recall_score

import zoopt
from zoopt.objectives.metric import Parts

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 200)
GUESS = np.where(RNG.random(200) < 0.6, TRUTH, RNG.integers(0, 3, 200))
VALUES, TARGETS = RNG.normal(size=50), RNG.normal(size=50)
PROBABILITIES = RNG.dirichlet([1, 1, 1], 200)
TIED, TIED_TARGETS = RNG.integers(0, 4, 60), RNG.integers(0, 4, 60)


LOWER_IS_BETTER = {
    "bradley_terry",
    "calibration_error",
    "cross_entropy",
    "dpo",
    "kl_to_base",
    "mae",
    "mse",
    "repetition",
    "toxicity",
    "words",
}
SMOOTH = {
    "bradley_terry",
    "calibration_error",
    "cross_entropy",
    "dpo",
    "expected_accuracy",
    "kl_to_base",
    "mae",
    "mse",
    "pearson",
    "soft_f1",
}


def f1_of(k, guess, truth):
    hit = ((guess == k) & (truth == k)).sum()
    return 2 * hit / ((guess == k).sum() + (truth == k).sum())


def ranks(values):
    return np.argsort(np.argsort(values))


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


def covariance(p, r):
    return np.mean([np.cov(p == k, r == k)[0, 1] for k in range(3)])


def kappa(p, r):
    agreed, chance = (p == r).mean(), sum((p == k).mean() * (r == k).mean() for k in range(3))
    return (agreed - chance) / (1 - chance)


def auc(scores, members):
    """Share of pairs of a member and a non-member in the right order; ties count half."""
    gaps = scores[members][:, None] - scores[~members]
    return (gaps > 0).mean() + (gaps == 0).mean() / 2


def tau_b(a, b):
    x, y = (np.sign(v[:, None] - v) for v in (a, b))
    return (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())


def mean_ranks(values):
    return (values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2


BY_HAND = {
    "mcc": lambda p, r: covariance(p, r) / np.sqrt(covariance(p, p) * covariance(r, r)),
    "cohen_kappa": kappa,
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


def test_logits_are_no_probabilities():
    with pytest.raises(ValueError, match=r"example 1's class is 2\.0: expected"):
        zoopt.get_objective("cross_entropy")([[0.5, 0.5], [-1.0, 2.0]], [0, 1])


def test_f1_of_more_than_two_classes_is_refused():
    with pytest.raises(ValueError, match=r"there are \[0, 2\]: tune f1_macro"):
        zoopt.get_objective("f1")([0, 1, 2], [0, 1, 1])


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro", "f1_weighted", "mcc"])
def test_scores_of_classes_are_those_of_scikit_learn(name):
    """Also where classes are missing on either side, as in a resample."""
    theirs = {
        "balanced_accuracy": lambda t, g: recall_score(
            t, g, labels=np.unique(t), average="macro", zero_division=0
        ),
        "f1_macro": lambda t, g: f1_score(t, g, average="macro", zero_division=0),
        "f1_weighted": lambda t, g: f1_score(t, g, average="weighted", zero_division=0),
        "mcc": matthews_corrcoef,
    }[name]
    for seed in range(50):
        truth, guess = np.random.default_rng(seed).integers(0, 2 + seed % 5, (2, 1 + seed % 9))
        assert zoopt.get_objective(name)(guess, truth) == pytest.approx(theirs(truth, guess))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", ((VALUES - TARGETS) ** 2).mean()),
        ("mae", np.abs(VALUES - TARGETS).mean()),
        ("kendall", tau_b(VALUES, TARGETS)),
        ("pearson", correlation(VALUES, TARGETS)),
        ("spearman", correlation(ranks(VALUES), ranks(TARGETS))),
    ],
)
def test_value_objectives_match_their_formulas(name, expected):
    assert zoopt.get_objective(name)(VALUES, TARGETS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kendall", tau_b(TIED, TIED_TARGETS)),
        ("spearman", correlation(mean_ranks(TIED), mean_ranks(TIED_TARGETS))),
    ],
)
def test_rank_correlations_with_ties_match_their_formulas(name, expected):
    assert zoopt.get_objective(name)(TIED, TIED_TARGETS) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["pearson", "spearman", "kendall"])
def test_correlation_with_a_constant_is_no_association(name):
    assert zoopt.get_objective(name)(np.ones(5), np.arange(5)) == 0.0
    assert zoopt.get_objective(name)([1.0], [2.0]) == 0.0


@pytest.mark.parametrize("name", ["pearson", "spearman", "kendall"])
def test_correlation_of_two_is_their_order(name):
    assert zoopt.get_objective(name)([1.0, 2.0], [5.0, 3.0]) == pytest.approx(-1)


@pytest.mark.parametrize(
    "name", ["accuracy", "balanced_accuracy", "f1", "f1_macro", "mcc", "cohen_kappa"]
)
def test_minibatches_of_one_class_are_scored_without_warnings(name):
    assert 0.0 <= zoopt.get_objective(name)([0, 1, 0], [0, 0, 0]) <= 1.0
    assert 0.0 <= zoopt.get_objective(name)([0, 0, 0], [0, 0, 0]) <= 1.0


@pytest.mark.parametrize("name", ["mcc", "cohen_kappa"])
def test_agreement_where_only_one_class_occurs_is_none_beyond_chance(name):
    assert zoopt.get_objective(name)([1, 1], [1, 1]) == 0.0
    assert zoopt.get_objective(name)([1, 0], [0, 1]) == pytest.approx(-1)


def test_expected_accuracy_is_the_mean_probability_of_the_true_class():
    expected = sum(row[k] for row, k in zip(PROBABILITIES, TRUTH, strict=True)) / 200
    assert zoopt.get_objective("expected_accuracy")(PROBABILITIES, TRUTH) == pytest.approx(expected)


def test_soft_f1_counts_with_probabilities_and_is_f1_where_they_are_sure():
    metric, truth = zoopt.get_objective("soft_f1"), (TRUTH > 0).astype(int)
    p = PROBABILITIES[:, 0]
    precision, recall = p[truth == 1].sum() / p.sum(), p[truth == 1].sum() / truth.sum()
    expected = 2 * precision * recall / (precision + recall)
    assert metric(np.stack([1 - p, p], 1), truth) == pytest.approx(expected)
    guess = (GUESS > 0).astype(int)
    assert metric(np.eye(2)[guess], truth) == pytest.approx(zoopt.get_objective("f1")(guess, truth))
    assert metric([[1.0, 0.0]], [0]) == 0.0
    with pytest.raises(ValueError, match="two classes, but there are 3"):
        metric(PROBABILITIES, TRUTH)


def test_roc_auc_of_two_classes_is_of_class_one_with_ties_counted_half():
    p, truth = np.round(PROBABILITIES[:, 0], 1), TRUTH > 0
    # The columns do not sum to one, so that the other column gives another number.
    columns = np.stack([PROBABILITIES[:, 1], p], 1)
    assert len(np.unique(p)) < 12
    assert zoopt.get_objective("roc_auc")(columns, truth) == pytest.approx(auc(p, truth))


def test_roc_auc_of_more_classes_is_the_mean_over_those_present():
    metric = zoopt.get_objective("roc_auc")
    each = [auc(PROBABILITIES[:, k], k == TRUTH) for k in range(3)]
    assert metric(PROBABILITIES, TRUTH) == pytest.approx(np.mean(each))
    some = TRUTH != 1
    each = [auc(PROBABILITIES[some, k], TRUTH[some] == k) for k in (0, 2)]
    assert metric(PROBABILITIES[some], TRUTH[some]) == pytest.approx(np.mean(each))


def test_roc_auc_of_one_class_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"all 3 references are of class 2.* larger batch_size; if"
    ):
        zoopt.get_objective("roc_auc")(PROBABILITIES[:3], [2, 2, 2])


def test_calibration_error_is_the_mean_gap_of_fifteen_bins():
    confidence, right = PROBABILITIES.max(1), PROBABILITIES.argmax(1) == TRUTH
    expected = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    metric = zoopt.get_objective("calibration_error")
    assert metric(PROBABILITIES, TRUTH) == pytest.approx(expected)
    assert metric([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 0.0
    assert metric([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 1.0


def test_top5_accuracy_finds_the_class_among_five_and_of_ties_takes_the_first():
    metric = zoopt.get_objective("top5_accuracy")
    probabilities = RNG.dirichlet([1] * 9, 200)
    truth = RNG.integers(0, 9, 200)
    above = (probabilities > probabilities[np.arange(200), truth][:, None]).sum(1)
    assert metric(probabilities, truth) == pytest.approx((above < 5).mean())
    assert metric(np.full((6, 6), 1 / 6), np.arange(6)) == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="3 classes is always 1"):
        metric(PROBABILITIES, TRUTH)


def test_ndcg_discounts_gains_by_the_logarithm_of_their_rank():
    relevance = RNG.integers(0, 4, 50).astype(float)
    discount = 1 / np.log2(np.arange(50) + 2)
    gain = (relevance[np.argsort(-VALUES)] * discount).sum()
    expected = gain / (np.sort(relevance)[::-1] * discount).sum()
    metric = zoopt.get_objective("ndcg")
    assert metric(VALUES, relevance) == pytest.approx(expected)
    assert metric(relevance, relevance) == pytest.approx(1)
    assert metric(VALUES, np.zeros(50)) == 0.0
    assert metric([1.0, 1.0], [0.0, 3.0]) == pytest.approx((1 + 1 / np.log2(3)) / 2)
    with pytest.raises(ValueError, match="negative"):
        metric([1.0, 2.0], [-1.0, 0.0])


@pytest.mark.parametrize(
    ("scores", "relevances", "expected"),
    [
        ([0.1, 0.9, 0.5], [1.0, 0.0, 0.0], 1 / 3),
        ([0.1, 0.9, 0.5], [1.0, 0.0, 2.0], 1 / 2),
        ([0.1, 0.9, 0.5], [0.0, 0.5, 2.0], 1.0),
        ([0.1, 0.9, 0.5], [0.0, 0.0, 0.0], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 0.0, 0.0], 1 / 3),  # ties count against it
        ([0.5, 0.5], [1.0, 1.0], 1.0),
    ],
)
def test_mrr_is_one_over_the_first_relevant_rank(scores, relevances, expected):
    assert zoopt.get_objective("mrr")(scores, relevances) == pytest.approx(expected)


BUILT_IN = {
    name: metric
    for name, metric in zoopt.objectives.registry.objectives().items()
    if metric.function.__module__.startswith("zoopt_objectives")
}
OF_NUMBERS = [
    name
    for name, metric in BUILT_IN.items()
    if metric.needs in ("labels", "probabilities", "values") and not metric.from_base
]


@pytest.mark.parametrize("name", [name for name, metric in BUILT_IN.items() if metric.each])
def test_what_is_said_of_each_example_is_what_is_said_of_it_alone(name):
    metric = BUILT_IN[name]
    probabilities, truth = RNG.dirichlet([1] * 7, (2, 40)), RNG.integers(0, 7, 40)
    predictions, references = {
        "labels": (GUESS, TRUTH),
        "probabilities": (probabilities[0], truth),
        "values": (VALUES, TARGETS),
    }[metric.needs]
    if metric.from_base:
        references = Parts((probabilities[1], truth))
    each = metric.by_example(predictions, references)
    alone = [slice(i, i + 1) for i in range(len(predictions))]
    np.testing.assert_allclose(each, [metric(predictions[i], references[i]) for i in alone])
    assert metric(predictions, references) == pytest.approx(each.mean(), rel=1e-12)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_nothing_and_sides_of_different_lengths_are_refused(name):
    metric = zoopt.get_objective(name)
    two = [[0.5, 0.5], [0.5, 0.5]] if metric.needs == "probabilities" else [0, 1]
    with pytest.raises(ValueError, match="nothing to score"):
        metric([], [])
    with pytest.raises(ValueError, match="2 predictions and 3 references"):
        metric(two, [0, 1, 1])


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_the_first_nan_is_named(name):
    metric, nan = zoopt.get_objective(name), float("nan")
    told = f"'{name}' cannot score example 1: its prediction is NaN"
    if metric.needs == "probabilities":
        with pytest.raises(zoopt.NonFiniteLossError, match=told):
            metric([[0.5, 0.5], [nan, 0.5], [nan, nan]], [0, 1, 1])
    elif metric.needs == "values":
        with pytest.raises(zoopt.NonFiniteLossError, match=told):
            metric([0.0, nan, nan], [0.0, 1.0, 2.0])
        with pytest.raises(ValueError, match=r"references\[2\] is NaN"):
            metric([0.0, 1.0, 3.0], [0.0, 1.0, nan])


def test_probabilities_of_the_wrong_shape_and_classes_that_have_none_are_refused():
    metric = zoopt.get_objective("expected_accuracy")
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        metric([0.5, 0.5], [0, 1])
    with pytest.raises(ValueError, match=r"references\[1\] is class 2"):
        metric([[0.5, 0.5]] * 2, [0, 2])
    with pytest.raises(ValueError, match=r"references\[0\] is class -1"):
        metric([[0.5, 0.5]] * 2, [-1, 0])
    with pytest.raises(ValueError, match="class indices"):
        metric([[0.5, 0.5]] * 2, [0.5, 0.0])


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_objective_says_which_way_is_better_its_bounds_and_documents_itself(name):
    metric = BUILT_IN[name]
    assert metric.higher_is_better == (name not in LOWER_IS_BETTER)
    assert metric.piecewise_constant == (name not in SMOOTH)
    low, high = metric.bounds
    assert low in (-1, 0)
    assert high in (1, float("inf"))
    assert metric.about.endswith(".")


@pytest.mark.parametrize("name", sorted({*OF_NUMBERS} - {"top5_accuracy", "soft_f1"}))
def test_scores_lie_within_their_bounds(name):
    metric, two = zoopt.get_objective(name), TRUTH > 0
    low, high = metric.bounds
    sides = {
        "labels": [(GUESS > 0, two), (two, two), (~two, two)],
        "probabilities": [(PROBABILITIES, TRUTH), (np.eye(3)[TRUTH], TRUTH)],
        "values": [(VALUES, TARGETS), (VALUES, abs(VALUES)), (-abs(VALUES), abs(VALUES))],
    }[metric.needs]
    if name == "ndcg":
        sides = sides[1:]
    for guess, truth in sides:
        assert low <= metric(guess, truth) <= high


@pytest.mark.parametrize(
    ("name", "predictions", "references"),
    [
        ("accuracy", [0, 1, 1], [0, 1, 0]),
        ("f1_macro", [0, 1, 1], [0, 1, 0]),
        ("cross_entropy", [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [0, 1, 0]),
        ("mse", [0.0, 1.0, 3.0], [0.5, 1.0, 2.0]),
        ("pearson", [0.0, 1.0, 3.0], [0.5, 1.0, 2.0]),
    ],
)
def test_references_in_a_column_are_as_good_as_in_a_row(name, predictions, references):
    """Numpy would compare each prediction with each reference."""
    metric = zoopt.get_objective(name)
    column = np.array(references)[:, None]
    assert metric(predictions, column) == metric(predictions, references)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro"])
def test_labels_of_two_types_and_of_several_classes_are_refused(name):
    metric = zoopt.get_objective(name)
    with pytest.raises(ValueError, match="texts on both sides, or numbers on both"):
        metric(["1", "0"], [1, 0])
    with pytest.raises(ValueError, match="one entry per example"):
        metric([[1, 0], [0, 1]], [[1, 0], [1, 1]])


@pytest.mark.parametrize("each", [lambda p, r: 0.5, lambda p, r: [0.5] * (len(p) - 1)])
def test_values_that_are_not_one_for_each_example_are_refused(each):
    metric = zoopt.Metric("mine", lambda p, r: 0.5, True, each=each)
    with pytest.raises(ValueError, match=r"each of 'mine' returned .* for 3 examples"):
        metric.by_example([1, 2, 3], [1, 2, 3])
