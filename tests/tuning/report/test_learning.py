"""A run whose probes say nothing says so, and what to change."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoopt
from zoopt.objectives.combination import blend
from zoopt.tasks import TaskObjective
from zoopt.tuning.report.learning import Halves, Learning, silent_share

ACCURACY = zoopt.get_objective("accuracy")


def test_silent_directions_are_those_without_a_difference():
    assert silent_share([0.0, 1e-300, -2.0, 0.0]) == 0.5


def learning(**entries):
    return Learning.of([{"silent": 0.0, "spread": 1.0, **entries}], noise_floor=0.0)


def test_advice_names_settings_that_help_and_is_silent_where_probes_speak():
    (said,) = learning(silent=0.75).advice(ACCURACY, 16, 1e-3)
    assert said.startswith("For 75% of the directions the probes gave the same value")
    for setting in ("batch_size=64", "eps=0.01", "start with expected_accuracy"):
        assert setting in said
    (said,) = learning(silent=0.75).advice(zoopt.get_objective("mse"), 16, 1e-3)
    assert "begin with" not in said
    assert learning(silent=0.4).advice(ACCURACY, 16, 1e-3) == []
    assert Learning.of([], 0.0).advice(ACCURACY, 16, 1e-3) == []


def test_advice_where_the_batch_or_the_objectives_own_noise_drowns_the_probes():
    (said,) = learning(shared=0.01, total=1.0).advice(ACCURACY, 16, 1e-3)
    assert "dominated by minibatch noise (signal to noise 0.14)" in said
    assert learning(shared=0.9, total=1.0).advice(ACCURACY, 16, 1e-3) == []
    noisy = Learning(silent=0.0, snr=None, noise_floor=0.2, spread=0.3)
    (said,) = noisy.advice(ACCURACY, 16, 1e-3)
    assert "repeated evaluations of the same weights by 0.2" in said


def test_signal_to_noise_is_that_of_a_known_mixture():
    """c₁ = t + n₁ and c₂ = t + n₂: the mean of both has signal var(t) and noise var(n)/2."""
    rng = np.random.default_rng(0)
    t, n = rng.normal(size=20_000), 2.0 * rng.normal(size=(2, 20_000))
    steps = [
        {"silent": 0.0, "spread": 1.0, "shared": a * b, "total": (a * a + b * b) / 2}
        for a, b in (t + n).T
    ]
    assert Learning.of(steps, 0.0).snr == pytest.approx((1.0 / (4.0 / 2)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("estimator", ["mezo", "nspsa", "onesided"])
def test_halves_are_what_the_estimator_gives_on_half_a_batch(estimator):
    """For a mean over examples of a linear function both halves are computed by hand."""
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = [{"x": x, "label": 0.0} for x in inputs]
    task = zoopt.Regression(rows, collate=lambda batch: torch.stack([r["x"] for r in batch]))
    mean = zoopt.Metric("mean", lambda values, _: np.mean(values), True, "values")
    objective, halves = TaskObjective(task, mean), Halves()
    model = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    optimizer = zoopt.ZOOptimizer(model, 0.0, estimator, engine="copy", maximize=True)

    def closure(population):
        said = task.predict_each(model, rows, population)
        halves.see(objective, said, objective.references(rows))
        return [objective.score(scores, None) for scores in said]

    optimizer.step(closure)
    found = halves.of(optimizer)
    alone = []
    for half in (rows[::2], rows[1::2]):
        again = zoopt.ZOOptimizer(model, 0.0, estimator, engine="copy", maximize=True)
        again.step(lambda half=half: objective.score(task.predict(model, half), None))
        alone.append(np.array(again.estimated.coefficients))
    assert found["shared"] == pytest.approx(alone[0] @ alone[1], rel=1e-6)
    assert found["total"] == pytest.approx((alone[0] ** 2 + alone[1] ** 2).sum() / 2, rel=1e-6)


def reward(completions, **columns):
    return [1.0 for _ in completions]


MIXED = zoopt.combined("words - reward", reward=reward)


@pytest.mark.parametrize("metric", [zoopt.metric(reward), MIXED, blend(MIXED, ACCURACY, 0.5)])
def test_halves_are_not_scored_by_what_may_be_expensive(metric):
    objective = SimpleNamespace(metric=metric, score=lambda *_: pytest.fail("asked again"))
    Halves().see(objective, [["a", "b"]], ["", ""])


@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError, IndexError])
def test_a_metric_that_half_a_batch_is_too_little_for_is_left_alone(error):
    def picky(values, references):
        if len(values) < 4:
            raise error("too few")
        return 0.0

    rows = [{"x": 0.0, "label": 0.0}] * 4
    task = zoopt.Regression(rows, collate=lambda batch: torch.zeros(len(batch), 1))
    halves = Halves()
    objective = TaskObjective(task, zoopt.Metric("picky", picky, True, "values"))
    halves.see(objective, np.zeros((1, 4)), np.zeros(4))
    optimizer = zoopt.ZOOptimizer(torch.nn.Linear(1, 1), 0.0)
    optimizer.step(lambda: 0.0)
    assert halves.of(optimizer) == {}


def test_a_run_on_accuracy_with_tiny_probes_reports_it(tmp_path, capsys):
    rows = [{"x": float(x), "label": str(int(x > 3))} for x in range(8)]
    task = zoopt.HeadClassification(
        rows,
        rows,
        rows,
        labels=["0", "1"],
        collate=lambda batch: torch.tensor([[row["x"]] for row in batch]),
    )
    torch.manual_seed(0)
    zoopt.tune(
        torch.nn.Linear(1, 2),
        task=task,
        objective="accuracy",
        eps=1e-7,
        lr=1e-3,
        steps=4,
        batch_size=8,
        run_dir=tmp_path,
    )
    assert "For 100% of the directions the probes gave" in " ".join(capsys.readouterr().out.split())
    assert "contribute nothing to the gradient" in (tmp_path / "report.html").read_text()
