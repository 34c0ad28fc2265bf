"""Intervals against a closed form, and paired gains."""

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import zoopt
from zoopt.objectives.metric import Parts
from zoopt.tasks import as_needed
from zoopt.tuning.report import evaluation
from zoopt.tuning.report.evaluation import compare
from zoopt.tuning.report.page import Report, Row

RNG = np.random.default_rng(0)


def logits_with_accuracy(truth, share):
    right = RNG.random(len(truth)) < share
    return np.eye(2)[np.where(right, truth, 1 - truth)]


def test_the_interval_of_an_accuracy_is_binomial(monkeypatch):
    monkeypatch.setattr(evaluation, "_RESAMPLES", 1000)
    truth = RNG.integers(0, 2, 400)
    scores = logits_with_accuracy(truth, 0.8)
    estimate = compare(zoopt.get_objective("accuracy"), {"model": scores}, truth).values["model"]
    half = 1.96 * np.sqrt(estimate.value * (1 - estimate.value) / 400)
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.15)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.15)


def test_gains_are_paired_and_positive_where_better():
    truth = RNG.integers(0, 2, 400)
    worse, better = logits_with_accuracy(truth, 0.6), np.eye(2)[truth]
    conditions = {"a": worse, "b": worse, "c": better}
    accuracy = compare(zoopt.get_objective("accuracy"), conditions, truth)
    assert accuracy.gains["a", "b"] == evaluation.Estimate(0.0, 0.0, 0.0)
    assert accuracy.gains["a", "c"].low > 0
    loss = compare(zoopt.get_objective("cross_entropy"), conditions, truth)
    assert loss.gains["a", "c"].value > 0


def test_a_single_example_has_no_interval():
    found = compare(zoopt.get_objective("accuracy"), {"m": np.eye(2)[:1]}, np.array([0]))
    assert found.values["m"].value == 1.0
    assert np.isnan(found.values["m"].low)


def test_resamples_that_a_metric_is_undefined_on_are_left_out(monkeypatch, caplog):
    monkeypatch.setattr(evaluation, "_RESAMPLES", 200)
    truth = np.array([1] * 2 + [0] * 58)  # one resample in eight has no positive
    scores = np.eye(2)[truth] + RNG.normal(size=(60, 2))
    found = compare(zoopt.get_objective("roc_auc"), {"m": scores}, truth).values["m"]
    assert 0 < found.low < found.value <= found.high <= 1
    assert not caplog.records
    alone = compare(zoopt.get_objective("roc_auc"), {"m": scores[2:]}, truth[2:]).values["m"]
    assert all(map(np.isnan, (alone.value, alone.low, alone.high)))
    (said,) = (record.getMessage() for record in caplog.records)
    assert "roc_auc is undefined on these examples: all 58 references are of class 0" in said


def words(number):
    return np.array([" ".join(["word"] * n) for n in RNG.integers(1, 9, number)], dtype=object)


def test_a_reward_is_asked_about_each_text_once(monkeypatch):
    monkeypatch.setattr(evaluation, "_RESAMPLES", 500)
    asked = []

    def judge(completions, weight, **columns):
        asked.append(len(completions))
        return [None if w == 0 else float(len(c)) for c, w in zip(completions, weight, strict=True)]

    rows = [{"prompt": "p", "weight": i % 3} for i in range(30)]
    texts, rows = words(30), np.array(rows, dtype=object)
    metric = zoopt.metric(judge)
    found = compare(metric, {"a": texts, "b": texts[::-1]}, rows).values["a"]
    assert asked == [30, 30]
    assert found.value == pytest.approx(metric(texts, rows))
    plain = zoopt.Metric("plain", metric.function, True, "completions")
    again = compare(plain, {"a": texts, "b": texts[::-1]}, rows).values["a"]
    for name in ("value", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(again, name))


def test_texts_within_nested_combinations_are_asked_about_once(monkeypatch):
    monkeypatch.setattr(evaluation, "_RESAMPLES", 50)
    asked = []

    def judge(texts, references):
        asked.append(len(texts))
        return float(np.mean([len(text) for text in texts]))

    mine = zoopt.Metric("mine", judge, True, "texts")
    nested = zoopt.combined("half - half", half=zoopt.combined("0.5 * mine", mine=mine))
    texts = words(9)
    references = Parts((Parts((texts,)),) * 2)
    assert compare(nested, {"m": texts}, references).values["m"].high == 0.0
    assert asked == [1, 1] * 9 + [9, 9]


def test_a_mean_over_examples_is_resampled_without_asking_again():
    truth = RNG.integers(0, 2, 50)
    scores = logits_with_accuracy(truth, 0.7)
    metric = zoopt.get_objective("accuracy")
    known = compare(
        replace(metric, function=lambda p, r: pytest.fail("asked")), {"m": scores}, truth
    )
    assert known.values == compare(replace(metric, each=None), {"m": scores}, truth).values


@pytest.mark.parametrize("name", ["cross_entropy", "accuracy", "f1"])
def test_a_prediction_that_is_no_number_leaves_a_metric_without_a_value(caplog, name):
    scores = np.array([[0.0, np.nan], [1.0, 0.0], [1.0, 0.0]])
    found = compare(zoopt.get_objective(name), {"m": scores}, np.zeros(3, int))
    assert np.isnan(found.values["m"].value)
    assert caplog.text.count(f"{name} is undefined on these examples") == 1


def test_a_judge_who_gives_up_is_not_asked_again(caplog):
    asked = []

    def judge(a, b):
        asked.append(a)
        raise ValueError("no idea")

    references = Parts((words(9), words(9)))
    found = compare(zoopt.comparison(judge), {"m": np.array(["?"] * 9)}, references)
    assert len(asked) == 1
    assert np.isnan(found.values["m"].value)
    assert "judge is undefined on these examples: no idea" in caplog.text


@pytest.mark.parametrize("needs", ["labels", "values", "texts"])
def test_a_comparison_is_asked_about_each_example_once(needs):
    asked = []

    def judge(a, b):  # and asked again would say something else
        asked.append((a[0], b[0]))
        return int(RNG.integers(-1, 2))

    base, tuned = words(20), words(20)
    scores = {"before": base, "tuned": tuned}
    if needs == "labels":
        scores = {name: np.eye(9)[[len(t) // 5 for t in said]] for name, said in scores.items()}
    elif needs == "values":
        scores = {name: np.array([float(len(t)) for t in said]) for name, said in scores.items()}
    references = Parts((as_needed(scores["before"], needs), words(20)))
    found = compare(zoopt.comparison(judge, needs=needs), scores, references)
    assert len(asked) == sum(a != b for a, b in zip(base, tuned, strict=True)) > 10
    assert found.values["before"].value == 0.5
    assert found.values["tuned"].value == found.each["tuned"].mean()


def test_a_report_of_a_comparison_asks_about_each_test_example_once():
    asked = []

    def judge(a, b):
        asked.append((*a, *b))
        return len(a[0]) - len(b[0])

    before, after = np.array(["a"] * 4), np.array(["a", "aa", "", "aaa"])

    class Texts(zoopt.tasks.Task):
        gives = "texts"
        forward = None
        anchored = references = staticmethod(lambda examples: before)

    rows = [{"label": "a"}] * 4
    task = Texts(rows, test=rows)
    report = Report.make(task, zoopt.comparison(judge), before, after, None, 0)
    assert len(asked) == 3
    assert report.row("judge").after.value == (0.5 + 1 + 0 + 1) / 4
    assert {change["after"]: change["better"] for change in report.changes} == {
        **{"aa": True, "": False, "aaa": True}
    }


@pytest.mark.parametrize("mean", [True, False])
def test_a_mean_over_texts_is_known_from_asking_about_each(mean, monkeypatch):
    monkeypatch.setattr(evaluation, "_RESAMPLES", 100)
    asked = []

    def length(texts, references):
        asked.append(len(texts))
        lengths = np.array([len(text) for text in texts], dtype=float)
        return lengths.mean() if mean else lengths.max()

    texts = words(20)
    compare(zoopt.Metric("length", length, True, "texts"), {"a": texts}, texts)
    assert len(asked) == (21 if mean else 21 + 101)


def test_a_terminal_of_80_columns_shows_names_and_numbers_whole():
    names, each = ("cross_entropy", "f1_macro"), evaluation.Estimate(-0.004, -0.010, 0.001)
    rows = tuple(Row(name, True, each, each, each, each, each) for name in names)
    terminal = Console(width=80, file=io.StringIO())
    terminal.print(Report(rows, (), 100, 1).table())
    shown = terminal.file.getvalue()
    assert "…" not in shown
    assert all(name in shown for name in (*names, "calibrated"))
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("0.001]") == 5 * len(names)


def test_a_metric_that_warns_does_so_once_for_all_resamples():
    def precision(predictions, references):
        if not predictions.all():
            warnings.warn("a class without predictions", UserWarning, stacklevel=1)
        return float((predictions == references).mean())

    metric = zoopt.metric(precision, higher_is_better=True)
    scores = {"before": np.eye(2)[[0, 1, 1, 0]], "tuned": np.eye(2)[[0, 1, 0, 0]]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compare(metric, scores, np.array([0, 1, 0, 1]))
    assert [str(each.message) for each in caught] == ["a class without predictions"]
