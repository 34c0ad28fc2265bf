"""Wrong uses of each convention: swapped sides, lengths, types and what is missing, and the errors.

A convention's own peculiarities are in ``test_conventions.py``.
"""

import functools

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.regression import MeanSquaredError

import zoopt
from zoopt.objectives.conventions import CONVENTIONS

RNG = np.random.default_rng(0)
TRUTH = np.array([0, 1, 2, 0, 1, 2])
SCORES = RNG.normal(size=(6, 3))
CHANCES, LABELS, VALUES = softmax(SCORES, axis=1), SCORES.argmax(axis=1), RNG.normal(size=6)
NAMES = ["cat", "dog", "owl", "cat", "dog", "owl"]
EXAMPLES = [{"prompt": "2+2", "answer": "4"}, {"prompt": "5+6", "answer": "11"}]
TEXTS = ["4", "12"]


def agreement(predictions, references):
    return float(np.mean(np.asarray(predictions) == np.asarray(references)))


class Agreement:
    def compute(self, predictions, references):
        return {"accuracy": agreement(predictions, references)}


def compute_metrics(eval_pred):
    guess = eval_pred.predictions.argmax(axis=-1)
    return {"accuracy": agreement(guess, eval_pred.label_ids), "f1": 0.5}


def right(completions, answer, **columns):
    return [float(text == known) for text, known in zip(completions, answer, strict=True)]


RIGHT = {
    "zoopt": zoopt.metric(agreement, higher_is_better=True),
    "sklearn": zoopt.metric("neg_log_loss"),
    "sklearn labels": zoopt.metric(metrics.accuracy_score),
    "sklearn probabilities": zoopt.metric(metrics.log_loss),
    "torchmetrics": zoopt.metric(MulticlassF1Score(num_classes=3)),
    "torchmetrics values": zoopt.metric(MeanSquaredError()),
    "evaluate": zoopt.metric(Agreement(), higher_is_better=True),
    "compute_metrics": zoopt.metric(compute_metrics, key="accuracy", higher_is_better=True),
    "reward": zoopt.metric(right),
}
GIVEN = {
    "zoopt": (LABELS, TRUTH),
    "sklearn": (SCORES, TRUTH),
    "sklearn labels": (LABELS, TRUTH),
    "sklearn probabilities": (CHANCES, TRUTH),
    "torchmetrics": (CHANCES, TRUTH),
    "torchmetrics values": (VALUES, VALUES + 1),
    "evaluate": (LABELS, TRUTH),
    "compute_metrics": (SCORES, TRUTH),
    "reward": (TEXTS, EXAMPLES),
}


def test_every_convention_is_in_the_tables():
    # "direct" is called with no predictions; tests/tasks/test_model_function.py has its wrong uses.
    assert {name.split()[0] for name in RIGHT} == set(CONVENTIONS) - {"direct"}
    for name, given in GIVEN.items():
        assert isinstance(RIGHT[name](*given), float)


@pytest.mark.parametrize("name", RIGHT)
def test_lengths_that_differ(name):
    predictions, references = GIVEN[name]
    n = len(predictions)
    told = rf"'{RIGHT[name].name}' was given {n} predictions and {n - 1} references: expected one"
    with pytest.raises(ValueError, match=told):
        RIGHT[name](predictions, references[1:])


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_at_all(name):
    with pytest.raises(ValueError, match="has nothing to score: it was given no predictions"):
        RIGHT[name]([], [])


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "None as predictions"),
        (3, "int 3 as predictions"),
        ("yes", "the string 'yes' as pred"),
    ],
)
def test_no_list_of_predictions(name, given, told):
    with pytest.raises(TypeError, match=f"'{RIGHT[name].name}' was given {told}"):
        RIGHT[name](given, GIVEN[name][1])


SWAPPED = r"\(6,\) as predictions and numbers of shape \(6, 3\) as references\. They look swapped"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sklearn", f"takes the task's own outputs.* numbers of shape {SWAPPED}: predictions"),
        ("sklearn probabilities", f"takes class probabilities, .* numbers of shape {SWAPPED}"),
        ("torchmetrics", f"takes class probabilities, .* numbers of shape {SWAPPED}"),
        ("compute_metrics", f"takes the task's own outputs: .* numbers of shape {SWAPPED}"),
        ("reward", "takes generated texts as predictions; prediction 0 is dict {'prompt': '2"),
    ],
)
def test_predictions_and_references_swapped(name, told):
    with pytest.raises(TypeError, match=told):
        RIGHT[name](*reversed(GIVEN[name]))


def test_labels_and_values_swapped_cannot_be_told_but_a_function_with_names_is_called_by_them():
    """Both sides look alike. So the names of the parameters decide, whatever their order."""

    def precision(y_pred, y_true):
        return metrics.precision_score(y_true, y_pred, average="macro", zero_division=0)

    expected = metrics.precision_score(TRUTH, LABELS, average="macro", zero_division=0)
    found = zoopt.metric(precision, higher_is_better=True)(LABELS, TRUTH)
    assert found == expected != metrics.recall_score(TRUTH, LABELS, average="macro")


@pytest.mark.parametrize(
    ("name", "predictions", "references", "told"),
    [
        ("zoopt", SCORES, TRUTH, r"takes class indices, shape \(N,\).* of shape \(6, 3\) as pred"),
        ("zoopt", LABELS, NAMES, r"numbers of shape \(6,\) as predictions and texts of shape"),
        ("zoopt", LABELS, SCORES, r"and numbers of shape \(6, 3\) as references"),
        ("sklearn", NAMES, TRUTH, r"takes the task's own outputs: class logits.* texts of shape"),
        ("sklearn", SCORES, NAMES, r"texts of shape \(6,\) as references"),
        ("sklearn labels", CHANCES, TRUTH, r"takes class indices.* of shape \(6, 3\) as pred"),
        ("sklearn labels", NAMES, TRUTH, r"texts of shape \(6,\) as predictions and numbers"),
        ("sklearn probabilities", LABELS, TRUTH, r"probabilities, shape \(N, classes\).*\(6,\) as"),
        ("torchmetrics", LABELS, TRUTH, r"takes class probabilities, shape \(N, classes\)"),
        ("torchmetrics", CHANCES, NAMES, r"texts of shape \(6,\) as references"),
        ("torchmetrics values", SCORES, VALUES, r"takes numbers, shape \(N,\).*\(6, 3\) as pred"),
        ("torchmetrics values", NAMES, VALUES, "texts of shape"),
        ("evaluate", SCORES, TRUTH, r"takes class indices, .* of shape \(6, 3\) as predictions"),
        ("evaluate", LABELS, NAMES, r"texts of shape \(6,\) as references"),
        ("evaluate", LABELS, [{"label": 1}] * 6, r"objects of shape \(6,\) as references"),
        ("compute_metrics", SCORES, NAMES, r"texts of shape \(6,\) as references"),
        ("compute_metrics", NAMES, TRUTH, "texts of shape"),
        ("compute_metrics", np.zeros((2, 3, 4)), [0, 1], r"numbers of shape \(2, 3, 4\) as pred"),
        ("reward", [4, 12], EXAMPLES, "prediction 0 is int 4"),
        ("reward", TEXTS, ["4", "11"], "reference 0 is the string '4'; .* dicts with a prompt"),
        ("reward", ["4", None], EXAMPLES, "prediction 1 is None"),
    ],
)
def test_predictions_or_references_of_a_wrong_type(name, predictions, references, told):
    with pytest.raises(TypeError, match=told):
        RIGHT[name](predictions, references)


def needing(completions, difficulty):
    return [0.0 for _ in completions]


def take_three(predictions, references, weights):
    return 0.0


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (
            lambda: zoopt.metric(take_three, higher_is_better=True),
            *(TypeError, r"missing a required argument: 'weights'.*functools\.partial\(take_three"),
        ),
        (lambda: zoopt.metric(agreement), ValueError, "does not say whether higher is better"),
        (
            lambda: zoopt.metric(metrics.fbeta_score),
            *(TypeError, "missing a required argument: 'beta'"),
        ),
        (lambda: zoopt.metric("f1_makro"), ValueError, "no scorer 'f1_makro'.* mean 'f1_macro'"),
        (
            lambda: zoopt.metric(functools.partial(metrics.f1_score, average=None))(LABELS, TRUTH),
            *(TypeError, r"returned ndarray of shape \(3,\).* average='macro'"),
        ),
        (
            lambda: zoopt.metric(MulticlassF1Score),
            *(TypeError, r"is a class: pass an instance of it, MulticlassF1Score\(\.\.\.\)"),
        ),
        (
            lambda: zoopt.metric(Agreement(), key="f1", higher_is_better=True)(LABELS, TRUTH),
            *(KeyError, "returned no 'f1'; it has 'accuracy'"),
        ),
        (
            lambda: zoopt.metric(compute_metrics, higher_is_better=True)(SCORES, TRUTH),
            *(TypeError, r"choose an entry with key=\.\.\., one of 'accuracy', 'f1'"),
        ),
        (
            lambda: zoopt.metric(compute_metrics, key="recall", higher_is_better=True)(
                SCORES, TRUTH
            ),
            *(KeyError, "returned no 'recall'; it has 'accuracy', 'f1'"),
        ),
        (
            lambda: zoopt.metric(needing)(TEXTS, EXAMPLES),
            *(KeyError, "'needing' takes 'difficulty', but no example has that column; besides"),
        ),
        (
            lambda: RIGHT["reward"](TEXTS, [EXAMPLES[0], {"answer": "11"}]),
            *(KeyError, "example 1 has no column 'prompt'; it has 'answer'"),
        ),
    ],
)
def test_what_is_missing(make, error, told):
    with pytest.raises(error, match=told):
        make()


@pytest.mark.parametrize("name", ["sklearn", "torchmetrics", "torchmetrics values"])
def test_a_prediction_that_is_nan_is_named(name):
    predictions, references = GIVEN[name]
    spoiled = predictions.copy()
    spoiled[4] = np.nan
    with pytest.raises(zoopt.NonFiniteLossError, match="cannot score example 4: its prediction is"):
        RIGHT[name](spoiled, references)
