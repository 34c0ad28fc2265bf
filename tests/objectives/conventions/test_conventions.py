"""Metrics that people have: each convention's values against the library's own, and wrong uses."""

import asyncio
import functools
import math

import numpy as np
import pytest
import torch
import torchmetrics
import torchmetrics.functional.classification as functional
from scipy.special import softmax
from sklearn import metrics
from torchmetrics.classification import BinaryAUROC, BinaryF1Score, MulticlassF1Score
from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef, R2Score

import zoopt
from zoopt.objectives.conventions import CONVENTIONS, recognise

RNG = np.random.default_rng(0)
TWO, THREE = RNG.normal(size=(40, 2)), RNG.normal(size=(40, 3))
BIT, TRUTH = RNG.integers(0, 2, 40), RNG.integers(0, 3, 40)
LABELS, CHANCES = THREE.argmax(axis=1), softmax(THREE, axis=1)
VALUES, TARGETS = RNG.normal(size=40), RNG.normal(size=40)
EXAMPLES = [
    {"prompt": "2+2", "answer": "4"},
    {"prompt": "5+6", "answer": "11"},
    {"prompt": "1+1", "answer": "2"},
]
TEXTS = ["4", "10", "two"]


def zero_one(predictions, references):
    """Share that differs.

    And more about it.
    """
    return np.mean(np.asarray(predictions) != np.asarray(references))


def first_of(fn, **options):
    """A function that returns what it is told, as a metric."""
    return zoopt.metric(fn, **{"higher_is_better": True, **options})


def length(completions):
    return [float(len(text)) for text in completions]


def right(completions, answer, **columns):
    return [float(text == a) for text, a in zip(completions, answer, strict=True)]


# One number out, as many predictions as references in: all conventions.


@pytest.mark.parametrize(
    "returned", [0.5, 1, True, np.float32(0.5), np.array([0.5]), torch.tensor(0.5), np.float64(-3)]
)
def test_anything_that_is_one_number_is_taken(returned):
    value = first_of(lambda predictions, references: returned)([1], [1])
    assert type(value) is float
    assert value == (0.5 if isinstance(returned, np.ndarray) else float(returned))


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, r"None; .*let it return its number"),
        ("0.5", r"the string '0.5'; .*not its text"),
        ([0.5, 0.5], r"a list of 2; .*reduce it to one"),
        ([0.5], r"a list of 1; "),
        (np.zeros(3), r"ndarray of shape \(3,\); .*\.mean\(\)"),
        (torch.zeros(2, 1), r"Tensor of shape \(2, 1\); "),
        (1j, r"complex 1j; "),
        ({"f1": 0.5, "loss": 1.0}, r"a dict; .*key=\.\.\., one of 'f1', 'loss'"),
        ({"f1": 0.5}, r"a dict; .*key=\.\.\., one of 'f1'"),
    ],
)
def test_anything_else_is_told_with_a_way_to_mend_it(returned, told):
    with pytest.raises(TypeError, match=f"'mine' returned {told}"):
        first_of(lambda predictions, references: returned, name="mine")([1], [1])


def test_a_key_chooses_a_number_from_a_dict_of_any_convention():
    def scores(predictions, references):
        return {"eval_loss": 3.0, "f1": torch.tensor(0.5), "all": [1, 2]}

    assert first_of(scores, key="f1")([1], [1]) == 0.5
    assert first_of(scores, key="f1").name == "f1"
    assert first_of(scores, key="eval_f1", name="mine").name == "mine"
    assert first_of(scores, key="eval_f1")([1], [1]) == 0.5
    assert first_of(scores, key="loss")([1], [1]) == 3.0
    with pytest.raises(KeyError, match="no 'f2'; it has 'eval_loss', 'f1', 'all'"):
        first_of(scores, key="f2")([1], [1])
    with pytest.raises(TypeError, match=r"'all\[all\]' returned a list of 2"):
        first_of(scores, key="all")([1], [1])
    with pytest.raises(TypeError, match="not a dict with 'f1'"):
        first_of(zero_one, key="f1")([1], [1])


def test_nan_is_handed_on_to_the_optimizer():
    assert math.isnan(first_of(lambda predictions, references: math.nan)([1], [1]))
    x = torch.nn.Parameter(torch.zeros(2))
    metric = first_of(lambda predictions, references: math.nan)
    with pytest.raises(zoopt.NonFiniteLossError):
        zoopt.ZOOptimizer([x], lr=0.1).step(lambda: metric([1], [1]))


@pytest.mark.parametrize(
    "metric",
    [
        zoopt.metric(zero_one, higher_is_better=False),
        zoopt.metric("f1_macro"),
        zoopt.metric(metrics.accuracy_score),
        zoopt.metric(MulticlassF1Score(num_classes=3)),
        zoopt.metric(lambda p: {"a": 1.0}, higher_is_better=True),
        zoopt.metric(length),
    ],
    ids=lambda metric: metric.name,
)
def test_as_many_predictions_as_references(metric):
    with pytest.raises(ValueError, match=f"'{metric.name}' was given 3 predictions and 2 ref"):
        metric([0, 1, 2], [0, 1])


def test_the_direction_must_be_known():
    with pytest.raises(ValueError, match="'zero_one' does not say whether higher is better"):
        zoopt.metric(zero_one)
    assert not zoopt.metric(zero_one, higher_is_better=False).higher_is_better


def test_what_it_takes_is_known_and_can_be_stated():
    metric = first_of(zero_one)
    assert metric.needs == "labels"
    assert metric.piecewise_constant
    assert first_of(zero_one, needs="values").needs == "values"
    assert not first_of(zero_one, needs="values").piecewise_constant
    with pytest.raises(ValueError, match=r"'zero_one' cannot take needs='logits'.*'labels', 'prob"):
        first_of(zero_one, needs="logits")


def test_a_metric_of_zoopts_stays_one():
    metric = first_of(zero_one)
    assert zoopt.metric(metric) == metric
    assert zoopt.metric(metric, higher_is_better=False, name="n").higher_is_better is False


# Names and detection.


class Share:
    def __call__(self, predictions, references):
        return 0.25

    def twice(self, predictions, references):
        return 0.5


@pytest.mark.parametrize(
    ("fn", "name", "value"),
    [
        (zero_one, "zero_one", 0.5),
        (functools.partial(functools.partial(zero_one)), "zero_one", 0.5),
        (lambda predictions, references: 3, "metric", 3.0),
        (Share(), "Share", 0.25),
        (Share().twice, "twice", 0.5),
    ],
)
def test_names(fn, name, value):
    metric = first_of(fn)
    assert metric.name == name
    assert metric([1, 2], [1, 3]) == value
    assert first_of(fn, name="mine").name == "mine"


def test_a_name_that_a_module_lacks_is_told():
    with pytest.raises(ValueError, match=r"module 'os' has no 'getcw'. Did you mean 'getcwd'\?"):
        zoopt.metric("os:getcw", higher_is_better=True)


def test_a_dotted_path_is_imported(tmp_path, monkeypatch):
    (tmp_path / "their_metrics.py").write_text(
        "class Kept:\n"
        "    @staticmethod\n"
        "    def half(predictions, references):\n"
        "        return 0.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    metric = first_of("their_metrics:Kept.half")
    assert (metric.name, metric([1], [1])) == ("half", 0.5)
    with pytest.raises(TypeError, match="Kept is a class"):
        first_of("their_metrics:Kept")
    with pytest.raises(ValueError, match=r"has no .other."):
        first_of("their_metrics:other")


def test_what_a_function_says_of_itself_stays():
    assert first_of(zero_one).about == "Share that differs."
    assert first_of(functools.partial(zero_one)).about == "Share that differs."


class Recipe:
    def compute(self, predictions=None, references=None):
        return {"accuracy": np.mean(np.asarray(predictions) == np.asarray(references))}


@pytest.mark.parametrize(
    ("convention", "fn"),
    [
        ("zoopt", zero_one),
        ("zoopt", lambda references, predictions: 0),
        ("sklearn", "f1"),
        ("sklearn", metrics.f1_score),
        ("sklearn", functools.partial(metrics.fbeta_score, beta=2)),
        ("sklearn", metrics.make_scorer(metrics.f1_score)),
        ("sklearn", lambda estimator, X, y: 0),
        ("sklearn", lambda y_hat, y_true: 0),
        ("torchmetrics", MulticlassF1Score(num_classes=3)),
        ("torchmetrics", functional.multiclass_accuracy),
        ("evaluate", Recipe()),
        ("compute_metrics", lambda eval_pred: 0),
        ("compute_metrics", lambda p, verbose=False: 0),
        ("reward", length),
        ("reward", lambda prompts, **columns: []),
    ],
)
def test_a_convention_is_recognised(convention, fn):
    assert recognise(fn) == convention


@pytest.mark.parametrize(
    "fn",
    [
        lambda *args: 0,
        lambda a, b: 0,
        lambda predictions, truth: 0,
        lambda p, q: 0,
        lambda model, x, y: 0,
        max,
        object(),
        3,
    ],
)
def test_what_is_not_recognised_is_asked_for_with_all_conventions(fn):
    with pytest.raises(TypeError, match="follows no known convention") as error:
        zoopt.metric(fn, higher_is_better=True)
    assert 'zoopt.metric(fn, convention="...")' in str(error.value)
    for name, convention in CONVENTIONS.items():
        assert f"  {name}: {convention.called}" in str(error.value)


def test_what_looks_like_two_is_asked_for():
    with pytest.raises(TypeError, match=r"y_true, y_pred, prompts\) looks like sklearn and reward"):
        zoopt.metric(lambda y_true, y_pred, prompts: 0)


def test_a_convention_can_be_stated_for_any_names():
    def told(a, b):
        return a[0] - b[0]

    assert first_of(told, convention="zoopt")([3], [1]) == 2
    assert first_of(told, convention="sklearn")([3], [1]) == -2
    assert first_of(told, convention="torchmetrics", needs="values")([3], [1]) == 2
    assert first_of(lambda *both: both[0][0], convention="sklearn")([3], [1]) == 1
    said = first_of(
        lambda x: {"a": x.predictions[0] - x.label_ids[0]}, convention="compute_metrics"
    )
    assert said([3], [1]) == 2
    anything = first_of(lambda **given: [len(given)] * 3, convention="reward")
    assert anything(TEXTS, EXAMPLES) == 3
    # Names that tell win over the stated order.
    swapped = first_of(lambda y_true, y_pred: y_pred[0] - y_true[0], convention="zoopt")
    assert swapped([3], [1]) == 2


def test_wrong_conventions():
    with pytest.raises(ValueError, match=r"convention='keras' is none of zoopt, sklearn, torchm"):
        zoopt.metric(zero_one, "keras")
    with pytest.raises(TypeError, match="the string 'f1' cannot be called as fn"):
        zoopt.metric("f1", "zoopt")
    with pytest.raises(TypeError, match="int 3 cannot be called as a scorer's name"):
        zoopt.metric(3, "sklearn")
    with pytest.raises(TypeError, match="zero_one has no method compute"):
        zoopt.metric(zero_one, "evaluate", higher_is_better=True)
    with pytest.raises(TypeError, match=r"Share is a class: .*Share\(\.\.\.\)"):
        zoopt.metric(Share)
    with pytest.raises(TypeError, match="with 2 arguments: too many positional"):
        zoopt.metric(lambda x: 0, "zoopt", higher_is_better=True)
    with pytest.raises(TypeError, match="with 1 argument: missing a required argument: 'b'"):
        zoopt.metric(lambda a, b: 0, "compute_metrics", higher_is_better=True)


def test_the_order_of_named_parameters_is_as_named():
    def forward(predictions, references):
        return predictions[0] - references[0]

    def backward(references, predictions, /):
        return predictions[0] - references[0]

    assert first_of(forward)([3], [1]) == first_of(backward)([3], [1]) == 2


# scikit-learn.


@pytest.mark.parametrize(
    ("name", "scores", "truth", "expected"),
    [
        ("f1_macro", THREE, TRUTH, metrics.f1_score(TRUTH, LABELS, average="macro")),
        ("accuracy", TWO, BIT, metrics.accuracy_score(BIT, TWO.argmax(axis=1))),
        ("f1", TWO, BIT, metrics.f1_score(BIT, TWO.argmax(axis=1))),
        ("neg_log_loss", THREE, TRUTH, -metrics.log_loss(TRUTH, CHANCES)),
        ("neg_brier_score", TWO, BIT, -metrics.brier_score_loss(BIT, softmax(TWO, axis=1)[:, 1])),
        ("roc_auc", TWO, BIT, metrics.roc_auc_score(BIT, TWO[:, 1] - TWO[:, 0])),
        ("roc_auc_ovr", THREE, TRUTH, metrics.roc_auc_score(TRUTH, CHANCES, multi_class="ovr")),
        ("neg_mean_squared_error", VALUES, TARGETS, -metrics.mean_squared_error(TARGETS, VALUES)),
        ("r2", VALUES, TARGETS, metrics.r2_score(TARGETS, VALUES)),
    ],
)
def test_a_scorer_by_its_name(name, scores, truth, expected):
    metric = zoopt.metric(name)
    assert (metric.name, metric.needs, metric.higher_is_better) == (name, "scores", True)
    assert metric(scores, truth) == pytest.approx(expected, rel=1e-12)
    assert metric(scores.tolist(), truth.tolist()) == pytest.approx(expected, rel=1e-12)


def test_a_scorer_of_probabilities_knows_classes_that_a_minibatch_lacks():
    scores, truth = np.random.default_rng(0).normal(size=(6, 3)), np.array([0, 1, 0, 1, 1, 0])
    expected = -metrics.log_loss(truth, softmax(scores, axis=1), labels=[0, 1, 2])
    assert zoopt.metric("neg_log_loss")(scores, truth) == pytest.approx(expected)
    assert zoopt.metric("neg_log_loss")(scores[:, :2], truth) == pytest.approx(
        -metrics.log_loss(truth, softmax(scores[:, :2], axis=1))
    )


def test_scorers_that_were_made():
    made = metrics.make_scorer(metrics.fbeta_score, beta=2, average="micro")
    assert zoopt.metric(made).name == "fbeta_score"
    assert zoopt.metric(made)(THREE, TRUTH) == metrics.fbeta_score(
        TRUTH, LABELS, beta=2, average="micro"
    )
    down = zoopt.metric(metrics.make_scorer(metrics.max_error, greater_is_better=False))
    assert (down.name, down.higher_is_better) == ("neg_max_error", True)
    assert down(VALUES, TARGETS) == -metrics.max_error(TARGETS, VALUES)
    hinge = metrics.make_scorer(metrics.hinge_loss, response_method="decision_function")
    assert zoopt.metric(hinge)(THREE, TRUTH) == metrics.hinge_loss(TRUTH, THREE)


def test_a_scorer_of_ones_own():
    def share_of_sure(estimator, X, y):
        assert list(estimator.classes_) == [0, 1, 2]
        return (estimator.predict_proba(X[:10]).max(axis=1) > 0.5).mean()

    metric = zoopt.metric(share_of_sure)
    assert metric.name == "share_of_sure"
    assert metric(THREE, TRUTH) == (CHANCES[:10].max(axis=1) > 0.5).mean()


@pytest.mark.parametrize(
    ("fn", "name", "needs", "up", "given", "truth", "expected"),
    [
        (
            functools.partial(metrics.f1_score, average="macro"),
            *("f1_score", "labels", True, LABELS, TRUTH),
            metrics.f1_score(TRUTH, LABELS, average="macro"),
        ),
        (
            metrics.roc_auc_score,
            *("roc_auc_score", "probabilities", True, softmax(TWO, axis=1), BIT),
            metrics.roc_auc_score(BIT, TWO[:, 1] - TWO[:, 0]),
        ),
        (
            metrics.log_loss,
            *("log_loss", "probabilities", False, CHANCES, TRUTH),
            metrics.log_loss(TRUTH, CHANCES),
        ),
        (
            metrics.brier_score_loss,
            *("brier_score_loss", "probabilities", False, softmax(TWO, axis=1), BIT),
            metrics.brier_score_loss(BIT, softmax(TWO, axis=1)[:, 1]),
        ),
        (
            functools.partial(metrics.top_k_accuracy_score, k=2),
            *("top_k_accuracy_score", "probabilities", True, CHANCES, TRUTH),
            metrics.top_k_accuracy_score(TRUTH, CHANCES, k=2),
        ),
        (
            metrics.mean_absolute_error,
            *("mean_absolute_error", "values", False, VALUES, TARGETS),
            metrics.mean_absolute_error(TARGETS, VALUES),
        ),
        (
            metrics.mean_poisson_deviance,
            *("mean_poisson_deviance", "values", False, np.exp(VALUES), np.exp(TARGETS)),
            metrics.mean_poisson_deviance(np.exp(TARGETS), np.exp(VALUES)),
        ),
        (
            metrics.hamming_loss,
            *("hamming_loss", "labels", False, LABELS, TRUTH),
            metrics.hamming_loss(TRUTH, LABELS),
        ),
    ],
)
def test_functions_of_sklearn(fn, name, needs, up, given, truth, expected):
    metric = zoopt.metric(fn)
    assert (metric.name, metric.needs, metric.higher_is_better) == (name, needs, up)
    assert metric(given, truth) == pytest.approx(expected, rel=1e-12)


def test_a_minibatch_may_lack_a_class():
    same = np.zeros(40, dtype=int)
    expected = -np.log(CHANCES[:, 0]).mean()
    assert zoopt.metric(metrics.log_loss)(CHANCES, same) == pytest.approx(expected)
    given = functools.partial(metrics.log_loss, labels=[0, 1, 2])
    assert zoopt.metric(given)(CHANCES, same) == pytest.approx(expected)


def test_functions_called_as_in_sklearn():
    def precision(y_true, y_pred):
        return metrics.precision_score(y_true, y_pred)

    def swapped(y_pred, y_true):
        return metrics.precision_score(y_true, y_pred)

    guess = TWO.argmax(axis=1)
    expected = metrics.precision_score(BIT, guess)
    assert expected != metrics.precision_score(guess, BIT)
    assert first_of(precision)(guess, BIT) == expected
    assert first_of(swapped)(guess, BIT) == expected
    with pytest.raises(ValueError, match="'precision' does not say whether higher"):
        zoopt.metric(precision)
    with pytest.raises(ValueError, match="'matthews_corrcoef' does not say whether higher"):
        zoopt.metric(metrics.matthews_corrcoef)
    seen = []
    first_of(lambda y_true, y_prob: seen.append(y_prob) or 0)(CHANCES, TRUTH)
    first_of(lambda y_true, y_prob: seen.append(y_prob) or 0)(softmax(TWO, axis=1), BIT)
    assert seen[0].shape == (40, 3)
    assert np.array_equal(seen[1], softmax(TWO, axis=1)[:, 1])


def test_wrong_uses_of_sklearn():
    with pytest.raises(ValueError, match=r"no scorer 'f1_macr'\. Did you mean 'f1_macro'"):
        zoopt.metric("f1_macr")
    with pytest.raises(ValueError, match=r"higher_is_better=False contradicts .*'neg_log_loss'"):
        zoopt.metric("neg_log_loss", higher_is_better=False)
    with pytest.raises(ValueError, match=r"'f1' cannot take needs='labels'.*'scores', 'values'"):
        zoopt.metric("f1", needs="labels")
    with pytest.raises(TypeError, match=r"missing a required argument: 'beta'.*partial\(fbeta_sco"):
        zoopt.metric(metrics.fbeta_score)
    with pytest.raises(TypeError, match=r"'f1_score' returned ndarray of shape \(3,\)"):
        zoopt.metric(functools.partial(metrics.f1_score, average=None))(LABELS, TRUTH)
    with pytest.raises(TypeError, match=r"returned ndarray of shape \(3, 3\)"):
        first_of(metrics.confusion_matrix)(LABELS, TRUTH)
    with pytest.raises(TypeError, match=r"given numbers of shape \(2, 2, 2\) as predictions"):
        zoopt.metric("f1")(np.zeros((2, 2, 2)), [0, 1])
    with pytest.raises(AttributeError, match="predict_proba"):
        zoopt.metric("neg_log_loss")(VALUES, BIT)


# torchmetrics.


def tensors(*arrays):
    return [torch.as_tensor(array) for array in arrays]


@pytest.mark.parametrize(
    ("made", "needs", "up", "given", "truth"),
    [
        (MulticlassF1Score(num_classes=3), "probabilities", True, CHANCES, TRUTH),
        (
            torchmetrics.Accuracy(task="multiclass", num_classes=3),
            *("probabilities", True),
            CHANCES,
            TRUTH,
        ),
        (MeanSquaredError(), "values", False, VALUES, TARGETS),
        (R2Score(), "values", True, VALUES, TARGETS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_of_torchmetrics(made, needs, up, given, truth):
    metric = zoopt.metric(made)
    assert metric.name == type(made).__name__
    assert (metric.needs, metric.higher_is_better) == (needs, up)
    expected = type(made).__call__(made, *tensors(given, truth)).item()
    for _ in range(2):  # The second use finds nothing left of the first.
        assert metric(given, truth) == pytest.approx(expected, rel=1e-6)
    assert metric(given[:10], truth[:10]) != pytest.approx(expected, rel=1e-6)


def test_what_is_binary_in_torchmetrics_takes_class_one():
    chances = softmax(TWO, axis=1)
    expected = metrics.roc_auc_score(BIT, chances[:, 1])
    assert zoopt.metric(BinaryAUROC())(chances, BIT) == pytest.approx(expected, rel=1e-6)
    expected = metrics.f1_score(BIT, TWO.argmax(axis=1))
    assert zoopt.metric(BinaryF1Score())(chances, BIT) == pytest.approx(expected, rel=1e-6)
    by_labels = zoopt.metric(BinaryF1Score(), needs="labels")
    assert by_labels(TWO.argmax(axis=1), BIT) == pytest.approx(expected, rel=1e-6)
    for function in (
        functional.binary_f1_score,
        functools.partial(torchmetrics.functional.f1_score, task="binary"),
    ):
        assert first_of(function)(chances, BIT) == pytest.approx(expected, rel=1e-6)


def test_functions_of_torchmetrics():
    metric = first_of(functools.partial(functional.multiclass_accuracy, num_classes=3))
    assert (metric.name, metric.needs) == ("multiclass_accuracy", "probabilities")
    expected = metrics.balanced_accuracy_score(TRUTH, LABELS)
    assert metric(CHANCES, TRUTH) == pytest.approx(expected, rel=1e-6)
    error = zoopt.metric(torchmetrics.functional.mean_squared_error, higher_is_better=False)
    assert error.needs == "values"
    expected = metrics.mean_squared_error(TARGETS, VALUES)
    assert error(VALUES, TARGETS) == pytest.approx(expected, rel=1e-6)
    swapped = first_of(lambda target, preds: (preds - target).sum(), needs="values")
    assert swapped(VALUES, TARGETS) == pytest.approx((VALUES - TARGETS).sum())


class WordShare:
    """torchmetrics' way without its class, for texts."""

    higher_is_better = None

    def reset(self):
        self.seen = []

    def update(self, preds, target):
        self.seen += [p == t for p, t in zip(preds, target, strict=True)]

    def compute(self):
        return sum(self.seen) / len(self.seen)


def test_an_object_that_is_called_as_torchmetrics():
    metric = first_of(WordShare(), needs="texts")
    assert [metric(["a", "b"], ["a", "c"]) for _ in range(2)] == [0.5, 0.5]


def test_wrong_uses_of_torchmetrics():
    with pytest.raises(ValueError, match="'WordShare' does not say what it takes as predictions"):
        first_of(WordShare())
    with pytest.raises(ValueError, match="'PearsonCorrCoef' does not say whether higher"):
        zoopt.metric(PearsonCorrCoef())
    stated = zoopt.metric(PearsonCorrCoef(), higher_is_better=True)
    assert stated(VALUES, TARGETS) == pytest.approx(np.corrcoef(VALUES, TARGETS)[0, 1], rel=1e-5)
    with pytest.raises(ValueError, match="'WordShare' does not say whether higher is better"):
        zoopt.metric(WordShare(), needs="texts")
    with pytest.raises(ValueError, match="'multiclass_accuracy' does not say whether higher"):
        zoopt.metric(functools.partial(functional.multiclass_accuracy, num_classes=3))
    with pytest.raises(ValueError, match=r"BinaryF1Score is for two classes, .*probabilities of 3"):
        zoopt.metric(BinaryF1Score())(CHANCES, TRUTH)
    with pytest.raises(TypeError, match=r"'MulticlassF1Score' returned Tensor of shape \(3,\)"):
        zoopt.metric(MulticlassF1Score(num_classes=3, average=None))(CHANCES, TRUTH)
    with pytest.raises(TypeError, match="MulticlassF1Score is a class"):
        zoopt.metric(MulticlassF1Score)
    both = torchmetrics.MetricCollection(
        [MulticlassF1Score(3), torchmetrics.Accuracy("multiclass", num_classes=3)]
    )
    stated = {"needs": "probabilities", "higher_is_better": True}
    with pytest.raises(TypeError, match=r"key=\.\.\., one of .*'MulticlassF1Score'"):
        zoopt.metric(both, **stated)(CHANCES, TRUTH)
    chosen = zoopt.metric(both, key="MulticlassF1Score", **stated)
    expected = metrics.f1_score(TRUTH, LABELS, average="macro")
    assert chosen(CHANCES, TRUTH) == pytest.approx(expected, rel=1e-6)


# Hugging Face evaluate, and the Trainer's compute_metrics.


def test_evaluate():
    metric = first_of(Recipe())
    assert (metric.name, metric.needs) == ("Recipe", "labels")
    assert metric(LABELS, TRUTH) == metrics.accuracy_score(TRUTH, LABELS)
    assert first_of(Recipe(), key="accuracy")(LABELS, TRUTH) == metrics.accuracy_score(
        TRUTH, LABELS
    )


def test_wrong_uses_of_evaluate():
    with pytest.raises(ValueError, match="'Recipe' does not say whether higher is better"):
        zoopt.metric(Recipe())
    with pytest.raises(KeyError, match="returned no 'f1'; it has 'accuracy'"):
        first_of(Recipe(), key="f1")(LABELS, TRUTH)
    with pytest.raises(ValueError, match="'Recipe' was given 2 predictions and 1 references"):
        first_of(Recipe())([1, 2], [1])

    class Several(Recipe):
        name = "several"

        def compute(self, predictions=None, references=None):
            return {"precision": 0.5, "recall": [0.5]}

    with pytest.raises(TypeError, match=r"'several' returned a dict; .*'precision', 'recall'"):
        first_of(Several())([1], [1])
    with pytest.raises(TypeError, match=r"'recall\[recall\]' returned a list of 1"):
        first_of(Several(), key="recall")([1], [1])


def test_compute_metrics():
    def compute_metrics(eval_pred):
        scores, truth = eval_pred
        guess = np.argmax(eval_pred.predictions, axis=-1)
        return {
            "eval_accuracy": metrics.accuracy_score(truth, guess),
            "f1": metrics.f1_score(eval_pred.label_ids, scores.argmax(axis=1), average="macro"),
        }

    accuracy, f1 = (first_of(compute_metrics, key=key) for key in ("accuracy", "eval_f1"))
    assert (accuracy.name, f1.name, f1.needs) == ("accuracy", "f1", "scores")
    assert accuracy(THREE, TRUTH) == metrics.accuracy_score(TRUTH, LABELS)
    assert f1(THREE, TRUTH) == metrics.f1_score(TRUTH, LABELS, average="macro")
    assert first_of(lambda p: {"only": 0.25})(THREE, TRUTH) == 0.25


def test_wrong_uses_of_compute_metrics():
    def compute_metrics(eval_pred):
        return {"accuracy": 0.5, "f1": 0.25}

    with pytest.raises(TypeError, match=r"choose an entry with key=.*'accuracy', 'f1'"):
        first_of(compute_metrics)(THREE, TRUTH)
    with pytest.raises(KeyError, match="no 'acc'; it has 'accuracy', 'f1'"):
        first_of(compute_metrics, key="acc")(THREE, TRUTH)
    with pytest.raises(ValueError, match="'f1' does not say whether higher is better"):
        zoopt.metric(compute_metrics, key="f1")
    with pytest.raises(ValueError, match="'f1' was given 40 predictions and 39 references"):
        first_of(compute_metrics, key="f1")(THREE, TRUTH[1:])
    with pytest.raises(TypeError, match="returned None"):
        first_of(lambda pred: None)(THREE, TRUTH)


# TRL's reward functions.


def test_a_reward_function():
    metric = zoopt.metric(right)
    assert (metric.name, metric.needs, metric.higher_is_better) == ("right", "completions", True)
    assert metric.piecewise_constant
    assert metric(TEXTS, EXAMPLES) == pytest.approx(1 / 3)
    assert zoopt.metric(length)(TEXTS, EXAMPLES) == pytest.approx(2.0)


def test_a_reward_function_gets_the_keywords_that_it_takes():
    seen = {}

    def all_of_it(prompts, completions, **columns):
        seen.update(columns, prompts=prompts, completions=completions)
        return [0.0] * len(prompts)

    examples = [{**e, "level": i} if i else e for i, e in enumerate(EXAMPLES)]
    zoopt.metric(all_of_it)(TEXTS, examples)
    assert seen == {
        "prompts": ["2+2", "5+6", "1+1"],
        "completions": TEXTS,
        "answer": ["4", "11", "2"],
        "level": [None, 1, 2],
    }
    zoopt.metric(all_of_it)(["a"], [{"prompt": "p", "completion": "c", "completion_ids": [7]}])
    assert seen["completion_ids"] == [[7]]
    assert "completion" not in seen

    def some_of_it(completions, *, completion_ids, trainer_state=None, level=0):
        assert completion_ids == [None] * 3
        assert trainer_state is None
        assert level == [None, 1, 2]
        return np.array([1.0, 2.0, 6.0])

    assert zoopt.metric(some_of_it)(TEXTS, examples) == 3.0

    def with_its_own(completions, answer):
        return [float(text == answer) for text in completions]

    bound = functools.partial(with_its_own, answer="10")
    assert zoopt.metric(bound)(TEXTS, EXAMPLES) == pytest.approx(1 / 3)
    assert zoopt.metric(bound).name == "with_its_own"


def test_conversations_are_answered_with_messages():
    def content(completions):
        return [float(len(c[0]["content"])) if isinstance(c, list) else -1.0 for c in completions]

    def roles(completions):
        return [float(c == [{"role": "assistant", "content": "ab"}]) for c in completions]

    chat = {"prompt": [{"role": "user", "content": "hi"}]}
    assert zoopt.metric(content)(["abc", "a"], [chat, chat]) == 2.0
    assert zoopt.metric(content)(["abc", "a"], [chat, {"prompt": "hi"}]) == 1.0
    assert zoopt.metric(roles)(["ab"], [chat]) == 1.0


async def soon(completions, **columns):
    await asyncio.sleep(0)
    return [float(len(text)) for text in completions]


class Later:
    async def __call__(self, prompts, completions):
        return await soon(completions)


@pytest.mark.parametrize("fn", [soon, Later(), functools.partial(soon, more=1)])
def test_async_reward_functions(fn):
    metric = zoopt.metric(fn)
    assert metric(TEXTS, EXAMPLES) == pytest.approx(2.0)

    async def in_a_loop():
        return metric(TEXTS, EXAMPLES)

    assert asyncio.run(in_a_loop()) == pytest.approx(2.0)


def test_none_skips_an_example():
    def only_sums_of_one(prompts, completions):
        return [None if p != "1+1" else 5.0 for p in prompts]

    assert zoopt.metric(only_sums_of_one)(TEXTS, EXAMPLES) == 5.0
    with pytest.raises(ValueError, match="'only_sums_of_one' returned None for all 2 examples"):
        zoopt.metric(only_sums_of_one)(TEXTS[:2], EXAMPLES[:2])


def test_weighted_rewards():
    both = zoopt.rewards([right, length], weights=[1.0, -0.5])
    assert both.name == "right+length"
    assert both(TEXTS, EXAMPLES) == pytest.approx((0.5 - 1.0 - 1.5) / 3)
    assert zoopt.rewards([right, soon])(TEXTS, EXAMPLES) == pytest.approx((2 + 2 + 3) / 3)
    assert zoopt.rewards([right], name="mine").name == "mine"


def test_none_of_one_function_adds_nothing_as_in_trl():
    tables = [[1.0, None, None, 4.0], [None, 2.0, None, 8.0]]
    weights = [1.0, 0.5]
    functions = [lambda completions, t=t: t for t in tables]
    # TRL: (rewards_per_func * weights).nansum(dim=1), and here an all-None row is left out.
    table = torch.tensor([[math.nan if v is None else v for v in t] for t in tables]).T
    sums = (table * torch.tensor(weights)).nansum(dim=1)[~table.isnan().all(dim=1)]
    examples = [{"prompt": ""}] * 4
    assert zoopt.rewards(functions, weights)(["a"] * 4, examples) == pytest.approx(
        sums.mean().item()
    )
    with pytest.raises(ValueError, match="returned None for all 1 examples"):
        zoopt.rewards([lambda completions: [None]] * 2)(["a"], examples[:1])


@pytest.mark.parametrize(
    ("returned", "error", "told"),
    [
        ([1.0, 2.0], ValueError, "'mine' returned 2 rewards for 3 completions"),
        ([1.0, "2", 3.0], TypeError, "'mine' returned '2' at index 1; expected a number"),
        ([1.0, 2.0, [3]], TypeError, r"'mine' returned \[3\] at index 2"),
        ([1.0, math.nan, 2.0], ValueError, "'mine' returned nan at index 1; expected a finite"),
        (0.5, TypeError, "'mine' returned float 0.5; expected a list of 3"),
        (None, TypeError, "'mine' returned None; expected a list of 3"),
        ({"a": 1}, TypeError, "'mine' returned dict .*; expected a list of 3"),
    ],
)
def test_rewards_of_wrong_shape_or_type(returned, error, told):
    def mine(completions):
        return returned

    with pytest.raises(error, match=told):
        zoopt.metric(mine)(TEXTS, EXAMPLES)


def test_wrong_uses_of_rewards():
    def graded(completions, grade, level):
        return [0.0] * len(completions)

    with pytest.raises(KeyError, match=r"'graded' takes 'grade', 'level', but no .*are 'answer'"):
        zoopt.metric(graded)(TEXTS, EXAMPLES)
    with pytest.raises(KeyError, match=r"'graded' takes 'level', but .* there are 'grade'"):
        zoopt.metric(graded)(["a"], [{"prompt": "", "grade": 1}])
    with pytest.raises(KeyError, match="example 1 has no column 'prompt'; it has 'answer'"):
        zoopt.metric(length)(TEXTS[:2], [EXAMPLES[0], {"answer": "4"}])
    with pytest.raises(TypeError, match=r"reference 0 is the string '4'; .*examples themselves"):
        zoopt.metric(length)(["4"], ["4"])
    with pytest.raises(
        TypeError, match="takes generated texts as predictions; prediction 0 is dict"
    ):
        zoopt.metric(length)(EXAMPLES, EXAMPLES)
    with pytest.raises(ValueError, match=r"higher_is_better=False contradicts"):
        zoopt.metric(length, higher_is_better=False)
    with pytest.raises(ValueError, match=r"'length' cannot take needs='labels'.*'completions'"):
        zoopt.metric(length, needs="labels")
    with pytest.raises(ValueError, match="2 reward functions, but 1 weights"):
        zoopt.rewards([length, right], [1.0])
    with pytest.raises(ValueError, match="weight 1 is 'a'; expected a finite number"):
        zoopt.rewards([length, right], [1.0, "a"])
    with pytest.raises(TypeError, match="rewards takes a list of reward functions"):
        zoopt.rewards(length)
    with pytest.raises(TypeError, match=r"called as fn\(prompts=.*; the string 'f' cannot be"):
        zoopt.rewards(["f"])
