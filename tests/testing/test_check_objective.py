"""Every registered objective passes the kit, and the kit finds what is wrong with one."""

import math
from importlib.metadata import entry_points

import numpy as np
import pytest
from sklearn.metrics import fbeta_score, make_scorer
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.regression import PearsonCorrCoef

import zoopt
from zoopt.tasks.preference import JUDGED
from zoopt.testing import check_objective

RNG = np.random.default_rng(0)
TEXTS = [
    "the cat sat on the mat",
    "a dog ran off to town",
    ["it was bad but short", "neither here nor there"],
]
JUDGED_PAIRS = np.array([(1.0, 1.0), (1.0, 2.0), (1.0, 1.0)], dtype=JUDGED)
PROMPTS = [{"prompt": "How was it?"}] * 3
SAMPLES = {
    "top5_accuracy": {"classes": 8},
    "words": {"good": ["a", "a b", ""], "bad": ["a b c", "a b", "a b c d"]},
    "repetition": {"good": [*TEXTS[:2], "so"], "bad": ["so it is so it is"] * 3},
    "format_match": {"good": ["1", "2", "33"], "bad": ["1", "two", "3!"]},
    "keywords": {"good": ["Please sit."] * 3, "bad": ["Sit.", "Please.", ""]},
    "toxicity": {"good": ["Hello."] * 3, "bad": ["Hello.", "You fool.", ""]},
    "vader": {"good": ["I love it!"] * 3, "bad": ["I hate it!", "It is.", ""]},
}
"""What the kit cannot make up, by name."""
ARGUMENTS = {"format_match": {"pattern": r"\d+"}, "keywords": {"words": "please"}}
"""What an objective cannot do without."""


BUILT_IN = entry_points(group="zoopt.objectives").names


@pytest.mark.parametrize("name", sorted(BUILT_IN - {"kl_to_base", "dpo"}))
def test_built_in_objectives_pass(name):
    metric = zoopt.get_objective(name, **ARGUMENTS.get(name, {}))
    given = {
        "texts": {"references": TEXTS},
        "completions": {"references": PROMPTS},
        "margins": {"references": JUDGED_PAIRS, "good": [9.0, 3.0, 1.0], "bad": [-1.0, 0.0, -2.0]},
    }.get(metric.needs, {})
    check_objective(metric, **given, **SAMPLES.get(name, {}))


def length(completions):
    return [float(len(text)) for text in completions]


@pytest.mark.parametrize(
    ("objective", "given"),
    [
        (make_scorer(fbeta_score, beta=2), {}),
        (MulticlassF1Score(num_classes=3), {"classes": 3}),
        (zoopt.metric(PearsonCorrCoef(), higher_is_better=True), {}),
        (zoopt.metric("r2"), {"references": [0.5, 2.0, -1.0, 1.5]}),
        (length, {"references": PROMPTS, "good": ["abc"] * 3, "bad": ["ab", "", "abc"]}),
        (zoopt.rewards([length]), {"references": PROMPTS[:1], "good": ["abc"], "bad": ["ab"]}),
        ("sklearn.metrics:hamming_loss", {}),
    ],
)
def test_metrics_of_others_pass(objective, given):
    check_objective(objective, **given)


def accuracy(predictions, references):
    return float(np.mean(np.asarray(predictions) == references))


class Forgetful:
    """Averages over all that it ever saw."""

    def __init__(self):
        self.seen = []

    def __call__(self, predictions, references):
        self.seen.append(accuracy(predictions, references))
        return np.mean(self.seen)


class Permissive(zoopt.Metric):
    """Scores what a metric refuses."""

    def __call__(self, predictions, references):
        if len(predictions) == 0:
            return 0.0
        return -float(np.nanmean(np.abs(np.subtract(predictions, references))))


def wrong(function, up=True, **more):
    return zoopt.Metric("mine", function, up, **more)


@pytest.mark.parametrize(
    ("objective", "given", "told"),
    [
        (wrong(accuracy, False), {}, r"'mine' is 1 for good .* declares higher_is_better=False"),
        (wrong(lambda p, r: 0.5), {}, r"0\.5 for good and for worse predictions"),
        (
            wrong(accuracy, bounds=(0, 0.9)),
            {},
            r"'mine' is 1, .* outside its bounds \[0, 0\.9\]",
        ),
        (wrong(accuracy, each=lambda p, r: p == 0), {}, r"its each= over 24 examples is 0\.5"),
        (wrong(lambda p, r: math.inf), {}, "'mine' is inf, which is not finite"),
        (wrong(Forgetful()), {}, r"is 0\.\d+ and then .*: it draws random numbers, or keeps"),
        (wrong(lambda p, r: RNG.random()), {}, "draws random numbers"),
        (
            wrong(lambda p, r: -abs(np.subtract(p, r, out=p)).mean(), needs="values"),
            {"references": [1.0, 2.0, 4.0]},
            "modifies the predictions that it is given",
        ),
        (
            wrong(lambda p, r: p[0] == r[0]),
            {"references": [0, 1], "bad": [0, 0]},
            "in reverse. If it is meant to depend",
        ),
        (Permissive("mine", accuracy, True, "values"), {}, "'mine' is 0.0 for no predictions"),
    ],
)
def test_what_is_wrong_is_found_and_told(objective, given, told):
    with pytest.raises(AssertionError, match=told):
        check_objective(objective, **given)


def test_references_that_are_changed_are_found():
    def sorts(predictions, references):
        value = accuracy(predictions, references)
        references.sort()
        return value

    with pytest.raises(AssertionError, match="modifies the references that it is given"):
        check_objective(wrong(sorts), references=[1, 0, 1, 0])


def test_nan_must_be_refused_with_the_examples_index():
    class Refusing(zoopt.Metric):
        def __call__(self, predictions, references):
            if len(predictions) == 0 or np.isnan(predictions).any():
                raise ValueError("no")
            return super().__call__(predictions, references)

    class Ignoring(Permissive):
        def __call__(self, predictions, references):
            if len(predictions) == 0:
                raise ValueError("no")
            return super().__call__(predictions, references)

    with pytest.raises(AssertionError, match="refuses the NaN of example 12 without its index: no"):
        check_objective(Refusing("mine", lambda p, r: -np.abs(p - r).mean(), True, "values"))
    with pytest.raises(AssertionError, match=r"is -0\.\d+ though example 12 is NaN; it must raise"):
        check_objective(Ignoring("mine", accuracy, True, "values"))


def test_any_order_false_lets_the_order_matter():
    first = wrong(lambda p, r: p[0] == r[0])
    check_objective(first, references=[0, 1, 2], bad=[1, 0, 2], any_order=False)


def test_predictions_that_cannot_be_made_are_asked_for():
    with pytest.raises(ValueError, match="'words' takes completions: give references"):
        check_objective("words")
    with pytest.raises(ValueError, match="'words' judges completions: give good and bad ones"):
        check_objective("words", references=PROMPTS)
    with pytest.raises(ValueError, match="give bad completions as well as good ones"):
        check_objective("words", references=PROMPTS, good=["a"] * 3)


def test_nothing_and_nan_are_refused_for_every_metric():
    """Whatever its function would make of them."""
    mean = wrong(lambda p, r: float(np.nanmean(p)), needs="values")
    with pytest.raises(
        ValueError, match="'mine' has nothing to score: it was given no predictions"
    ):
        mean([], [])
    with pytest.raises(zoopt.NonFiniteLossError, match="'mine' cannot score example 2: its pred"):
        mean([0.0, 1.0, math.nan], [0.0] * 3)
