"""Objectives of the model itself: (model, batch), (model) and ()."""

import functools

import pytest
import torch

import zoopt


def batches(count, seed=0):
    torch.manual_seed(seed)
    inputs = torch.randn(count, 8, 3)
    return [(x, x.sum(1, keepdim=True)) for x in inputs]


def error(model, batch):
    """Mean absolute error of a batch."""
    inputs, targets = batch
    return (model(inputs) - targets).abs().mean()


def run(objective, tmp_path, model=None, **settings):
    model = model or torch.nn.Linear(3, 1)
    options = {"lr": 0.02, "eps": 1e-2, "steps": 150, "eval_every": 50, "quiet": True}
    return zoopt.tune(
        model, objective=objective, run_dir=tmp_path, **{**options, **settings}
    ), model


def test_a_function_of_model_and_batch_is_tuned_with_intervals_over_batches(tmp_path):
    objective = zoopt.metric(error, higher_is_better=False)
    result, model = run(
        objective, tmp_path, train=batches(20), dev=batches(4, 1), test=batches(10, 2)
    )
    row = result.report.row("error")
    assert row.gain.low > 0
    values = [error(model, batch).item() for batch in batches(10, 2)]
    assert row.after.value == pytest.approx(sum(values) / 10, rel=1e-5)
    assert (tmp_path / "report.html").exists()


def test_a_run_on_batches_resumes(tmp_path):
    objective = zoopt.metric(error, higher_is_better=False)
    train = batches(20)

    def base():
        torch.manual_seed(1)
        return torch.nn.Linear(3, 1)

    _, whole = run(objective, tmp_path / "a", base(), train=train, steps=60)
    calls = 0

    def breaks(model, batch):
        nonlocal calls
        calls += 1
        if calls == 70:
            raise KeyboardInterrupt
        return error(model, batch)

    breaks.__name__ = "error"
    stopped = zoopt.metric(breaks, higher_is_better=False)
    result, _ = run(stopped, tmp_path / "b", base(), train=train, steps=60)
    assert "interrupted" in result.stop
    _, resumed = run(objective, tmp_path / "b", base(), train=train, steps=60)
    assert torch.equal(whole.weight, resumed.weight)


def test_a_function_of_the_model_alone_and_one_of_nothing(tmp_path):
    far = lambda model: (model.weight - 1).norm().item()  # noqa: E731
    result, model = run(zoopt.metric(far, higher_is_better=False), tmp_path / "model")
    assert far(model) == pytest.approx(result.report.rows[0].after.value)
    assert far(model) < 0.5 * result.report.rows[0].before.value
    model = torch.nn.Linear(3, 1)
    nothing = zoopt.metric(functools.partial(far, model), higher_is_better=False)
    result, _ = run(nothing, tmp_path / "nothing", model)
    assert far(model) < 0.5 * result.report.rows[0].before.value


@pytest.mark.parametrize(
    ("fn", "given", "wrong", "message"),
    [
        (error, {}, TypeError, r"error\(model, batch\) takes batches, but none are given"),
        (lambda model: 0.0, {"train": [1]}, TypeError, "takes no batch, but train is given"),
        (lambda model, batch: None, {"train": [1]}, TypeError, "returned None; expected one num"),
        (lambda model, batch: torch.ones(2), {"train": [1]}, TypeError, r"shape \(2,\)"),
        (error, {"train": []}, ValueError, "no training examples"),
        (
            error,
            {"train": [1], "direction": "lowrank", "engine": "batched", "estimator": "nspsa"},
            TypeError,
            "engine='overlay' or 'inplace'",
        ),
    ],
)
def test_wrong_uses_say_what_to_write(fn, given, wrong, message, tmp_path):
    if "engine" in given:
        given = {**given, "train": batches(2)}
    with pytest.raises(wrong, match=message):
        run(zoopt.metric(fn, higher_is_better=False), tmp_path, **given)


def test_a_function_that_calls_backward_is_told_to_return_its_number(tmp_path):
    def trained(model, batch):
        loss = error(model, batch)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match=r"remove \.backward\(\).*return the loss"):
        run(zoopt.metric(trained, higher_is_better=False), tmp_path, train=batches(2))


def test_more_arguments_than_two_are_refused():
    with pytest.raises(TypeError, match=r"functools\.partial"):
        zoopt.metric(lambda model, x, y: 0.0, "direct", higher_is_better=False)


def test_a_metric_of_predictions_without_a_task_is_refused(tmp_path):
    with pytest.raises(TypeError, match="there is no task to make them"):
        run("accuracy", tmp_path)


def test_a_combination_of_functions_of_the_model_is_refused(tmp_path):
    size = zoopt.metric(lambda model: 0.0, higher_is_better=False)
    both = zoopt.combined("size + 0.1 * error", size=size, error=size)
    with pytest.raises(TypeError, match=r"combines functions of the model.* write a function"):
        run(both, tmp_path, train=batches(2))


def test_batches_beside_a_task_are_refused(tmp_path):
    task = zoopt.Regression([{"x": 1.0, "label": 0.0}], collate=lambda rows: torch.ones(1, 3))
    with pytest.raises(TypeError, match="got a task as well as train"):
        run("mse", tmp_path, task=task, train=batches(2))
