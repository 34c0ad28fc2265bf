"""A dry run: what it says is so, θ is as it was, and nothing is written."""

import numpy as np
import pytest
import torch

import zoopt
from zoopt.tuning import making
from zoopt.tuning.dryrun import DryRun
from zoopt.tuning.making import make_optimizer
from zoopt.tuning.settings import settings_from


def dry(model, task, objective="cross_entropy", **settings):
    metric = zoopt.get_objective(objective)
    return DryRun.of(model, task, metric, settings_from({"objective": objective, **settings}))


@pytest.mark.parametrize("update", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("engine", ["inplace", "copy", "overlay"])
def test_the_weights_are_as_they_were(blobs, engine, update):
    model, task = blobs()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = dry(model, task, engine=engine, update=update, lr=0.1, params="0.*")
    assert all(torch.equal(before[n], tensor) for n, tensor in model.state_dict().items())
    assert found.tuned == 56
    assert found.parameters == 90
    assert found.state == 56 * {"sgd": 0, "momentum": 4, "adam": 8}[update]
    assert found.weights == sum(t.numel() * t.element_size() for t in before.values())
    assert found.forwards == 2
    assert found.working > 0


def test_time_is_that_of_steps_and_evaluations(blobs):
    model, task = blobs()
    found = dry(model, task, steps=25, eval_every=10, batch_size=6, calibrate_on=20)
    assert found.evaluations == 4  # 0, 10, 20, 25
    a_row = found.evaluation_seconds / 30
    assert a_row > 0
    assert found.test_seconds == pytest.approx((2 * 30 + 20) * a_row)
    assert found.seconds == pytest.approx(
        25 * found.step_seconds + 4 * 30 * a_row + 80 * a_row + found.compile_seconds
    )


def test_rates_that_the_run_will_find_are_called_auto(blobs):
    model, task = blobs()
    told = dry(model, task, lr="auto", eps=0.01).account()
    assert "lr auto, eps 0.01" in told["group 0"]
    assert told["time"].endswith("plus the search for lr and eps")


def test_memory_that_does_not_suffice_is_noticed_and_the_task_left_as_it_was(blobs):
    model, task = blobs()
    collate = task.collate

    def small(batch):
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return collate(batch)

    task.collate = small
    dry(model, task, batch_size=8)
    assert task.batch_size == 32


def test_weights_in_half_precision_are_as_they_were(blobs):
    model, task = blobs()
    collate = task.collate
    task.collate = lambda batch: collate(batch).bfloat16()
    model.bfloat16()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dry(model, task, lr=0.1)
    assert all(torch.equal(before[n], tensor) for n, tensor in model.state_dict().items())


def test_a_task_that_generates_is_measured_with_the_engine_of_its_run(blobs, monkeypatch):
    model, task = blobs()
    collate = task.collate
    task.collate = lambda batch: collate(batch).bfloat16()
    model.bfloat16()
    made = []

    def remembered(*args, **options):
        made.append(make_optimizer(*args, **options))
        return made[-1]

    monkeypatch.setattr(making, "make_optimizer", remembered)
    first = zoopt.Metric("first", lambda said, references: len(said[0]), True, needs="texts")
    task.predict = lambda model, examples, advance=None: np.array(["yes"] * len(examples))
    DryRun.of(model, task, zoopt.get_objective("cross_entropy"), settings_from({"lr": 0.1}))
    task.gives = "texts"
    DryRun.of(model, task, first, settings_from({"lr": 0.1}))
    assert [optimizer.engine.name for optimizer in made] == ["overlay", "copy"]
