"""A run: it learns, resumes bit for bit, replays, refuses what would corrupt it, and reports."""

import json
import math
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import zoopt
from zoopt import trajectory


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class InterruptedAt(zoopt.HeadClassification):
    """A task whose n-th forward is interrupted."""

    def forward(self, model, examples):
        self.left = getattr(self, "left", 0) - 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().forward(model, examples)


def interrupt_after(task, forwards):
    task.__class__ = InterruptedAt
    task.left = forwards + 1


def test_a_run_learns_and_reports(blobs, settings, tmp_path):
    model, task = blobs()
    result = zoopt.tune(model, task=task, run_dir=tmp_path, **{**settings, "steps": 150})
    row = result.report.row("accuracy")
    assert row.after.value > 0.8
    assert row.gain.value == pytest.approx(row.after.value - row.before.value)
    assert row.after.low <= row.after.value <= row.after.high
    assert result.stop == {"steps": 150}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "calibrated" in page
    assert "150 steps" in page
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_is_left_with_the_best_weights_and_they_are_saved(blobs, settings, tmp_path):
    model, task = blobs()
    result = zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["dev"] for line in lines if "dev" in line}
    assert sorted(scores) == [0, 10, 20, 30]
    assert result.best_score == min(scores.values())
    assert scores[result.best_step] == result.best_score
    saved = load_file(tmp_path / "best" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(saved[name], tensor)


@pytest.mark.parametrize("update", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("engine", ["inplace", "copy", "overlay"])
@pytest.mark.parametrize("forwards", [7, 48])
def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(
    blobs, settings, tmp_path, update, engine, forwards
):
    settings |= {"update": update, "engine": engine}
    whole, task = blobs()
    zoopt.tune(whole, task=task, run_dir=tmp_path / "whole", **settings)

    model, task = blobs()
    interrupt_after(task, forwards)
    result = zoopt.tune(model, task=task, run_dir=tmp_path / "parts", **settings)
    assert "interrupted" in result.stop
    assert (tmp_path / "parts" / "report.html").exists()
    model, task = blobs()
    result = zoopt.tune(model, task=task, run_dir=tmp_path / "parts", **settings)
    assert result.stop == {"steps": 30}
    assert torch.equal(weights(model), weights(whole))
    logs = [(tmp_path / part / "trajectory.jsonl").read_text() for part in ("whole", "parts")]
    assert logs[0] == logs[1]


def drawn():
    """The next numbers of all global generators."""
    return [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002


def test_random_numbers_of_an_objective_depend_on_seed_and_step_alone(blobs, settings, tmp_path):
    """Of whichever generator; and what the caller draws afterwards does not depend on the run."""

    def noisy(predictions, references):
        return float(np.mean(predictions[:, 0] * references) + 0.1 * np.dot(drawn(), (1, 2, 4)))

    settings |= {"objective": zoopt.metric(noisy, needs="scores", higher_is_better=True)}
    tune, ends = zoopt.tune, []  # importing it imports rich, which draws a number
    for name, interruptions in {"whole": (), "parts": (7, 40)}.items():
        for forwards in (*interruptions, 10_000):
            model, task = blobs()
            interrupt_after(task, forwards)
            seed_all(forwards)
            result = tune(model, task=task, run_dir=tmp_path / name, **settings)
            after = drawn()
            seed_all(forwards)
            assert after == drawn()
        scores = [line for line in metrics(tmp_path / name) if "dev" in line]
        ends.append((weights(model).tolist(), scores, result.report.row("noisy").after))
    assert ends[0] == ends[1]


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("update", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("engine", ["inplace", "copy", "overlay"])
def test_replay_gives_the_tuned_weights_bit_for_bit(blobs, settings, tmp_path, update, engine):
    settings |= {"update": update, "engine": engine, "weight_decay": 0.1}
    tuned, task = blobs()
    result = zoopt.tune(tuned, task=task, run_dir=tmp_path, **settings)
    base, _ = blobs()
    assert zoopt.replay(base, tmp_path, step="best") == result.best_step
    assert torch.equal(weights(base), weights(tuned))


def test_replay_to_a_number_and_to_the_last(blobs, settings, tmp_path):
    tuned, task = blobs()
    zoopt.tune(tuned, task=task, run_dir=tmp_path, **settings)
    start, _ = blobs()
    zero, _ = blobs()
    assert zoopt.replay(zero, tmp_path, step=0) == 0
    assert torch.equal(weights(zero), weights(start))
    one, _ = blobs()
    assert zoopt.replay(one, tmp_path, step=1) == 1
    assert not torch.equal(weights(one), weights(start))
    last, _ = blobs()
    assert zoopt.replay(last, tmp_path) == 30
    with pytest.raises(trajectory.TrajectoryError, match="0 to 30"):
        zoopt.replay(blobs()[0], tmp_path, step=31)


def test_replay_refuses_another_base_model_naming_both(blobs, settings, tmp_path):
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    with pytest.raises(trajectory.TrajectoryError, match=r"fingerprint .* has "):
        zoopt.replay(model, tmp_path)


def test_a_torn_last_line_is_dropped_and_the_run_goes_on(blobs, settings, tmp_path):
    whole, task = blobs()
    zoopt.tune(whole, task=task, run_dir=tmp_path, **settings)
    log = tmp_path / "trajectory.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:26]) + lines[26][:40])
    metrics = tmp_path / "metrics.jsonl"
    kept = [m for m in metrics.read_bytes().splitlines(keepends=True) if b'"step": 30' not in m]
    metrics.write_bytes(b"".join(kept)[:-5])
    (tmp_path / "snapshot.safetensors").unlink()
    before = log.read_bytes()
    assert trajectory.read(log) is not None
    assert log.read_bytes() == before, "reading a log must not write it"
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    assert log.read_bytes() == b"".join(lines)
    assert torch.equal(weights(model), weights(whole))


def test_a_damaged_line_inside_the_log_is_an_error_that_says_where(blobs, settings, tmp_path):
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    log = tmp_path / "trajectory.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[5] = b"not json\n"
    log.write_bytes(b"".join(lines))
    with pytest.raises(trajectory.TrajectoryError, match=r"line 6 .* damaged"):
        zoopt.replay(blobs()[0], tmp_path)


@pytest.mark.parametrize(
    ("change", "message"), [({"format": 99}, "upgrade zoopt"), ({"kernel": 0}, "kernel version 0")]
)
def test_logs_of_other_versions_are_refused(blobs, settings, tmp_path, change, message):
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    log = tmp_path / "trajectory.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    lines[0] = json.dumps({**json.loads(lines[0]), **change}) + "\n"
    log.write_text("".join(lines))
    with pytest.raises(trajectory.TrajectoryError, match=message):
        zoopt.replay(blobs()[0], tmp_path)


def test_changed_settings_are_an_error_that_shows_the_difference(blobs, settings, tmp_path):
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    with pytest.raises(ValueError, match=r"lr: 0\.05 there, 0\.1 now"):
        zoopt.tune(blobs()[0], task=task, run_dir=tmp_path, **{**settings, "lr": 0.1})


def test_every_update_is_in_the_log_before_it_is_in_the_weights(blobs, settings, tmp_path):
    model, task = blobs()
    interrupt_after(task, 5 + 2 * 4 + 1)  # five evaluations, four steps, one probe of the fifth
    result = zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    log = trajectory.read(tmp_path / "trajectory.jsonl")
    assert result.steps == 4
    assert [record.step for record in log.records] == [0, 1, 2, 3]
    assert all(len(record.losses) == 2 for record in log.records)


def test_a_non_finite_objective_ends_the_run_with_its_report(blobs, settings, tmp_path):
    model, task = blobs()
    count = iter(range(10_000))

    @zoopt.register_objective("breaks", higher_is_better=False)
    def breaks(predictions, references):
        return math.nan if next(count) > 10 else 1.0

    result = zoopt.tune(model, task=task, run_dir=tmp_path, **{**settings, "objective": "breaks"})
    assert "non-finite objective" in result.stop
    assert torch.isfinite(weights(model)).all()
    assert "non-finite" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_non_differentiable_objective_is_maximized(blobs, settings, tmp_path):
    model, task = blobs()
    changes = {"objective": "f1", "eps": 0.2, "lr": 0.05, "steps": 200, "batch_size": 60}
    result = zoopt.tune(model, task=task, run_dir=tmp_path, **{**settings, **changes})
    assert result.report.row("f1").gain.low > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"learning_rate": 1}, TypeError, "no setting is called 'learning_rate'"),
        ({"estimator": "mezzo"}, KeyError, "Did you mean 'mezo'"),
        ({"objective": "acuracy"}, KeyError, "Did you mean 'accuracy'"),
        ({"schedule": "linaer"}, ValueError, "Did you mean 'linear'"),
        ({"lr": -1.0}, ValueError, "lr=-1.0 must be a positive"),
        ({"steps": 0}, ValueError, "steps=0 must be at least 1"),
        ({"steps": 6.5}, TypeError, "steps=6.5 must be a whole number"),
        ({"seed": None}, TypeError, "seed=None must be a whole number"),
        ({"estimator": zoopt.MeZO}, TypeError, "such as zoopt.MeZO"),
        ({"params": {"*": {"lr": 1e-3}}}, TypeError, "ZOOptimizer or zoopt.ZOTrainer"),
        ({"params": ["0.*", "nothing.*"]}, ValueError, "'nothing.*' in params chose no"),
        ({"estimator": "spsa", "n": 3}, ValueError, "use 'nspsa'"),
        ({"params": "nothing.*"}, ValueError, "no parameter to tune"),
        ({"objective": "mse"}, ValueError, "takes values"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    blobs, settings, tmp_path, change, error, message
):
    model, task = blobs()
    with pytest.raises(error, match=message):
        zoopt.tune(model, task=task, run_dir=tmp_path / "run", **{**settings, **change})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("estimator", "n"), [("mezo", 1), ("onesided", 8), ("ranking", 4)])
def test_an_estimator_draws_its_own_number_of_directions_where_nobody_says(estimator, n):
    assert zoopt.Settings(estimator=estimator).n == n
    assert zoopt.Settings(estimator=estimator, n=n + 1).n == n + 1


def test_objects_are_as_good_as_names(blobs, settings, tmp_path):
    model, task = blobs()
    estimator = zoopt.MeZO(eps=0.01, direction="rademacher")
    named = {**settings, "estimator": "mezo", "direction": "rademacher"}
    zoopt.tune(model, task=task, run_dir=tmp_path / "names", **named)
    other, task = blobs()
    del settings["eps"]
    objects = {**settings, "estimator": estimator}
    zoopt.tune(other, task=task, run_dir=tmp_path / "objects", **objects)
    assert torch.equal(weights(model), weights(other))


def test_an_estimator_keeps_its_options(blobs, settings, tmp_path):
    model, task = blobs()
    del settings["eps"]
    bounded = zoopt.NSPSA(eps=0.01, n=2, clip=1e-6)
    zoopt.tune(model, task=task, run_dir=tmp_path, estimator=bounded, **settings)
    assert torch.allclose(weights(model), weights(blobs()[0]), atol=1e-4)
    again, task = blobs()
    named = {"estimator": "nspsa", "n": 2, "eps": 0.01, "direction": "gaussian"}
    zoopt.tune(
        again,
        task=task,
        run_dir=tmp_path,
        estimator_options={"clip": 1e-6},
        **{**settings, **named},
    )


@pytest.mark.parametrize(
    ("rule", "name", "options"),
    [
        (zoopt.Momentum(beta=0.5), "momentum", {"beta": 0.5}),
        (zoopt.Adam(beta1=0.5, zeta=1e-3), "adam", {"beta1": 0.5, "zeta": 1e-3}),
    ],
)
def test_an_update_rule_keeps_its_options(blobs, settings, tmp_path, rule, name, options):
    ways = {
        "object": {"update": rule},
        "names": {"update": name, "update_options": options},
        "defaults": {"update": name},
    }
    ends = {}
    for way, change in ways.items():
        model, task = blobs()
        zoopt.tune(model, task=task, run_dir=tmp_path / way, **{**settings, **change})
        ends[way] = weights(model)
    assert torch.equal(ends["object"], ends["names"])
    assert not torch.equal(ends["object"], ends["defaults"])
    replayed, _ = blobs()
    zoopt.replay(replayed, tmp_path / "object", step="best")
    model, task = blobs()
    model.load_state_dict(load_file(tmp_path / "object" / "best" / "model.safetensors"))
    assert torch.equal(weights(model), weights(replayed))


def test_a_rule_that_a_resumed_run_could_not_make_is_refused(blobs, settings, tmp_path):
    class Mine(zoopt.Momentum):
        name = "mine"

    model, task = blobs()
    with pytest.raises(TypeError, match="is of a class that is not registered"):
        zoopt.tune(model, task=task, run_dir=tmp_path / "run", **{**settings, "update": Mine()})
    assert not (tmp_path / "run").exists()
