"""Intervals against a closed form, paired gains, and calibration against brute force."""

import io

import numpy as np
import pytest
from rich.console import Console

import zoopt
from zoopt.tuning import evaluation
from zoopt.tuning.evaluation import class_offsets, compare
from zoopt.tuning.report import Report, Row

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


def test_calibration_is_the_best_threshold():
    truth = RNG.integers(0, 2, 200)
    margin = RNG.normal(size=200) + truth + 3.0
    offsets = class_offsets(np.stack([np.zeros(200), margin], axis=1), truth)
    best = max(((margin > cut) == truth).mean() for cut in np.sort(margin))
    assert ((margin + offsets[1] > 0) == truth).mean() == best


def test_calibration_of_three_classes_never_hurts():
    truth = RNG.integers(0, 3, 200)
    scores = RNG.normal(size=(200, 3)) + 2 * np.eye(3)[truth] + np.array([3.0, 0.0, -2.0])
    before = (scores.argmax(1) == truth).mean()
    assert ((scores + class_offsets(scores, truth)).argmax(1) == truth).mean() > before + 0.1


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
