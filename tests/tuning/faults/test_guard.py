"""The guard: spikes are cut, a run that diverges goes back, and all of it is in the log."""

import json
import math
import shutil

import pytest
import torch

import zoopt
from zoopt import trajectory
from zoopt.interfaces import GradientEstimate, Probe
from zoopt.trajectory import checkpoint
from zoopt.tuning.faults.fitting import Fitting
from zoopt.tuning.faults.guard import WINDOW, Guard
from zoopt.tuning.faults.rollbacks import Rollbacks
from zoopt.tuning.making import make_optimizer
from zoopt.tuning.settings import settings_from
from zoopt.tuning.stepping import Stepper


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def watched(losses, maximize=False):
    guard = Guard(10.0, maximize=maximize)
    for loss in losses:
        guard.see(GradientEstimate((1,), (0.1,), (loss, loss)))
    return guard


@pytest.mark.parametrize(
    ("later", "lost"),
    [
        ([1.0] * 30, False),
        ([1.2] * 30, False),  # within the scatter of the first
        ([5.0] * (WINDOW // 2 - 1) + [1.0] * 11, False),  # a few bad batches
        ([3.0] * WINDOW, True),
        ([0.1] * 30 + [0.9] * WINDOW, False),  # worse than it was, not than at the start
    ],
)
def test_a_run_is_lost_where_it_is_far_worse_than_at_the_start(later, lost):
    start = [0.9, 1.0, 1.1] * 4
    assert bool(watched([*start, *later]).trouble()) is lost


def test_a_beginning_of_zeros_says_nothing_of_what_is_far():
    assert not watched([0.0] * 60 + [0.0025] * 60).trouble()


@pytest.mark.parametrize(
    ("later", "sound"),
    [
        ([], 0),
        ([1.0] * 38, 30),  # two windows back
        ([1.0] * 18 + [1.0 + 0.02 * k for k in range(40)], 32),  # where it began to grow
        ([3.0] * 38, 6),
        ([0.2] * 18 + [0.2 + 0.02 * k for k in range(40)], 32),  # far below where it began
    ],
)
def test_what_is_sound_is_from_before_the_run_got_worse(later, sound):
    start = [0.9, 1.0, 1.1] * 4
    assert watched([*start, *later]).sound == sound


def test_maximized_objectives_are_judged_by_what_is_minimized():
    assert not watched([-0.5] * WINDOW + [-0.9] * 30).trouble()
    worse = watched([-0.9] * WINDOW + [-0.1] * 30, maximize=True)
    assert "from 0.9 to 0.1" in worse.trouble()
    negative = watched([0.2] * WINDOW + [3.0] * 30, maximize=True)  # rewards may be below zero
    assert "from -0.2 to -3" in negative.trouble()
    unearned = watched([0.0, 0.1, -0.1, 0.0] * WINDOW + [3.0] * 30, maximize=True)
    assert "from 0 to -3" in unearned.trouble()


def test_losses_that_are_partly_of_a_surrogate_are_not_compared():
    """A cross-entropy of 0.5 gives way to an error count of 50, which stays where it is."""
    estimates = [
        GradientEstimate((1,), (0.1,), (loss,))
        for loss in [*range(40), *[50.0] * 30, *[90.0] * WINDOW]
    ]
    guard = Guard(10.0, surrogate_steps=40)
    for estimate in estimates[:70]:
        guard.see(estimate)
        assert not guard.trouble()
    for estimate in estimates[70:]:
        guard.see(estimate)
    assert "from 50 to 90" in guard.trouble()


def test_the_bound_follows_the_median_and_ignores_silent_directions():
    guard = Guard(clip=3.0)
    for c in [0.0] * 50 + [0.2, -0.4, 0.6] * 4:
        guard.see(GradientEstimate((1,), (c,), (1.0,)))
    assert guard.bound == pytest.approx(3.0 * 0.4)
    assert Guard(clip=0.0).bound is None
    assert Guard(clip=3.0).bound is None


class Spiked(zoopt.HeadClassification):
    """A task whose objective is wrong for a while, by the count of its batches of 8."""

    def forward(self, model, examples):
        logits = super().forward(model, examples)
        self.count = getattr(self, "count", 0) + (len(examples) == 8)
        if self.count in self.wrong and len(examples) == 8:
            return logits + self.wrong[self.count] * torch.tensor([1.0, -1.0])
        return logits


def test_a_spike_moves_theta_no_further_than_its_bound(blobs, settings, tmp_path):
    model, task = blobs()
    task.__class__, task.wrong = Spiked, {2 + 2 * 20 + 1: 500.0}
    zoopt.tune(model, task=task, run_dir=tmp_path, **{**settings, "eval_every": 30})
    records = trajectory.read(tmp_path / "trajectory.jsonl").records
    spiked = max(records, key=lambda record: abs(record.losses[0] - record.losses[1]))
    c = (spiked.losses[0] - spiked.losses[1]) / (2 * spiked.eps[0])
    assert spiked.clip is not None
    assert abs(c) > 100 * spiked.clip
    tuned = weights(model)
    again, _ = blobs()
    zoopt.replay(again, tmp_path, step="best")
    assert torch.equal(weights(again), tuned)


def diverging(run_dir, steps, lr=2.1, plateau=math.inf, **settings):
    """Of θ²/2 in one dimension: at η = 2.1 a step multiplies θ by −1.1, at 1.05 by −0.05.

    Beyond the plateau, on which there is no slope, no rate leads back.
    """
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    result = zoopt.tune(
        model,
        train=[0],
        objective=zoopt.metric(
            lambda model, batch: min(float(model.weight.detach() ** 2) / 2, plateau),
            higher_is_better=False,
        ),
        direction="rademacher",
        lr=lr,
        eps=1e-2,
        steps=steps,
        schedule="constant",
        clip_ratio=0.0,
        run_dir=run_dir,
        quiet=True,
        **settings,
    )
    return model, result, trajectory.read(run_dir / "trajectory.jsonl")


def test_a_run_that_diverges_goes_back_and_ends_well(tmp_path):
    lost, result, log = diverging(tmp_path / "lost", 60, rollbacks=0)
    assert not log.rollbacks
    assert float(lost.weight.detach()) ** 2 > 1e3
    model, result, log = diverging(tmp_path / "kept", 60)
    (rollback,) = log.rollbacks
    assert rollback.at - rollback.to == 2 * WINDOW
    assert [record.lr[0] for record in log.records] == [2.1] * rollback.to + [1.05] * (
        60 - rollback.to
    )
    assert [record.step for record in log.records] == list(range(60))
    assert float(model.weight.detach()) ** 2 < 1e-6
    assert result.stop == {"steps": 60}
    base = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(base.weight)
    zoopt.replay(base, tmp_path / "kept")
    assert torch.equal(base.weight, model.weight)
    lines = (tmp_path / "kept" / "metrics.jsonl").read_text().splitlines()
    assert sum("rollback" in json.loads(line) for line in lines) == 1


@pytest.mark.parametrize("eval_every", [1, 3, 10])
@pytest.mark.parametrize("lr", [2.1, 2.02])
def test_a_run_goes_back_to_weights_from_before_it_diverged(tmp_path, lr, eval_every):
    """Scores would tell these evaluations apart, and there are no development examples."""
    plateau = 8.0 if lr == 2.1 else 2.0
    model, result, log = diverging(tmp_path, 120, lr, plateau, eval_every=eval_every)
    assert result.stop == {"steps": 120}
    (rollback,) = log.rollbacks
    assert (lr - 1) ** (2 * rollback.to) / 2 < plateau / 2
    assert float(model.weight.detach()) ** 2 < 1e-6


@pytest.mark.parametrize("steps", [0, 4])
def test_after_going_back_the_best_weights_are_none_that_do_not_count(tmp_path, steps):
    """Without scores the best are the last ones."""

    class Ends(zoopt.Callback):
        def stop(self):
            log = trajectory.read(tmp_path / "trajectory.jsonl")
            made = len(log.records) - log.rollbacks[-1].to if log.rollbacks else -1
            return {"test": made} if made == steps else {}

    model, result, log = diverging(tmp_path, 120, 2.02, 2.0, eval_every=2, callbacks=[Ends()])
    (rollback,) = log.rollbacks
    assert rollback.to % 2, "an evaluation there would be another case"
    assert result.best_step == result.steps == len(log.records)
    base = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(base.weight)
    zoopt.replay(base, tmp_path, step="best")
    assert torch.equal(base.weight, model.weight)


def test_snapshots_of_a_run_that_learns_keep_close_to_it(blobs, settings, tmp_path):
    """A run of many evaluations goes on from near its end, and back to what was sound."""
    held = []

    def on_step(metrics, step):
        names = ("snapshot.safetensors", "snapshot.earlier.safetensors")
        held.append([step, *(checkpoint.step_of(tmp_path / name, -1) for name in names)])

    model, task = blobs()
    settings |= {"eval_every": 2, "steps": 90}
    zoopt.tune(model, task=task, run_dir=tmp_path, callbacks=[on_step], **settings)
    assert all(step - latest <= 2 * WINDOW + 2 for step, latest, _ in held)
    assert all(earlier <= step - 2 * WINDOW for step, _, earlier in held if step > 2 * WINDOW)
    assert all(step - earlier <= 4 * WINDOW + 4 for step, _, earlier in held[4:])
    assert checkpoint.step_of(tmp_path / "snapshot.safetensors", -1) == 90


def test_a_number_that_is_not_finite_takes_the_run_back(blobs, settings, tmp_path):
    model, task = blobs()
    task.__class__, task.wrong = Spiked, {2 + 2 * 24 + 1: math.nan}
    result = zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    log = trajectory.read(tmp_path / "trajectory.jsonl")
    assert result.stop == {"steps": 30}
    assert len(log.rollbacks) == 1
    assert "NaN" in log.rollbacks[0].why
    assert (log.rollbacks[0].to, log.rollbacks[0].at) == (20, 24)


def test_without_rollbacks_it_ends_the_run(blobs, settings, tmp_path):
    model, task = blobs()
    task.__class__, task.wrong = Spiked, {2 + 2 * 24 + 1: math.nan}
    result = zoopt.tune(model, task=task, run_dir=tmp_path, rollbacks=0, **settings)
    assert "non-finite objective" in result.stop
    assert result.steps < 30


def test_a_run_that_diverges_however_slowly_it_goes_ends(blobs, settings, tmp_path):
    model, task = blobs()
    task.__class__, task.wrong = Spiked, dict.fromkeys(range(50, 10_000), math.nan)
    result = zoopt.tune(model, task=task, run_dir=tmp_path, rollbacks=2, **settings)
    assert "non-finite objective" in result.stop
    assert len(trajectory.read(tmp_path / "trajectory.jsonl").rollbacks) == 2


@pytest.mark.parametrize("after", [0, 3, 12])
def test_a_run_interrupted_after_going_back_ends_as_the_uninterrupted_one(
    blobs, settings, tmp_path, after
):
    """The objective fails at one step at its first learning rate, and at none lower."""

    class Fails(zoopt.Callback):
        def __init__(self, left=None):
            self.left, self.back = left, False

        def on_step(self, metrics, step):
            self.back = self.back or metrics["lr"] < settings["lr"] / 2
            if self.left is not None and self.back:
                self.left -= 1

        def stop(self):
            return {"test": 0} if self.left is not None and self.left < 0 else {}

    class FailsFast(zoopt.HeadClassification):
        def forward(self, model, examples):
            logits = super().forward(model, examples)
            lost = weights(model).norm() > limit
            return logits * math.nan if lost else logits

    settings |= {"lr": 3.0, "schedule": "constant", "rollbacks": 9}
    base, _ = blobs()
    limit = 1.5 * float(weights(base).norm())
    ends = []
    for left in (None, after):
        model, task = blobs()
        task.__class__ = FailsFast
        folder = tmp_path / str(left)
        zoopt.tune(model, task=task, run_dir=folder, callbacks=[Fails(left)], **settings)
        if left is not None:
            model, task = blobs()
            task.__class__ = FailsFast
            zoopt.tune(model, task=task, run_dir=folder, **settings)
        ends.append((weights(model), (folder / "trajectory.jsonl").read_text()))
    assert "rollback" in ends[0][1]
    assert ends[0][1] == ends[1][1]
    assert torch.equal(ends[0][0], ends[1][0])


@pytest.mark.parametrize("engine", ["inplace", "overlay"])
@pytest.mark.parametrize("rows", [8, 30], ids=["probe", "evaluation"])
def test_a_run_killed_after_a_step_whose_theta_fails_goes_back_as_the_uninterrupted_one(
    blobs, settings, tmp_path, rows, engine
):
    """Killed once the step is logged, and before the last NaN of a probe or an evaluation."""

    class Fails(zoopt.HeadClassification):
        def forward(self, model, examples):
            logits = super().forward(model, examples)
            if len(examples) != rows or weights(model).norm() <= limit:
                return logits
            if folder == whole:
                shutil.rmtree(killed, ignore_errors=True)
                shutil.copytree(whole, killed)
            return logits * math.nan

    settings |= {"lr": 3.0, "schedule": "constant", "rollbacks": 9, "engine": engine}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    limit = 1.5 * float(weights(blobs()[0]).norm())
    ends = []
    for folder in (whole, killed):
        model, task = blobs()
        task.__class__ = Fails
        result = zoopt.tune(model, task=task, run_dir=folder, **settings)
        ends.append((weights(model), (folder / "trajectory.jsonl").read_text(), result.stop))
    log = trajectory.read(whole / "trajectory.jsonl")
    assert log.rollbacks[-1].at > log.rollbacks[-1].to
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]


@pytest.mark.parametrize("eval_every", [1, 50])
def test_a_run_killed_at_a_step_that_diverged_goes_back_as_the_uninterrupted_one(
    tmp_path, eval_every
):
    class Kill(zoopt.Callback):
        def on_step(self, metrics, step):
            if step == at and metrics["lr"] == 2.1:
                raise RuntimeError("killed")

    *_, log = diverging(tmp_path / "whole", 45, eval_every=eval_every)
    at = log.rollbacks[0].at
    with pytest.raises(RuntimeError, match="killed"):
        diverging(tmp_path / "killed", 45, callbacks=[Kill()], eval_every=eval_every)
    *_, resumed = diverging(tmp_path / "killed", 45, eval_every=eval_every)
    assert resumed == log


def test_forwards_of_steps_that_do_not_count_are_counted_also_after_a_kill(tmp_path, monkeypatch):
    """Killed right after it went back, a run that goes on knows what it has spent."""

    def last(folder):
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [line["forwards"] for line in lines if "value" in line][-1]

    *_, log = diverging(tmp_path / "whole", 45)
    (rollback,) = log.rollbacks
    assert last(tmp_path / "whole") == 2 + 2 * (45 + rollback.at - rollback.to)

    def killed(rollbacks):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Rollbacks, "_rebuild_with_best", killed)
        with pytest.raises(RuntimeError, match="killed"):
            diverging(tmp_path / "killed", 45)
    *_, resumed = diverging(tmp_path / "killed", 45)
    assert resumed == log
    assert last(tmp_path / "killed") == last(tmp_path / "whole")


@pytest.mark.parametrize("objective", ["cross_entropy", "accuracy"])
def test_an_evaluation_that_is_not_finite_takes_the_run_back_too(
    blobs, settings, tmp_path, objective
):
    class Fails(zoopt.HeadClassification):
        def forward(self, model, examples):
            self.evaluations = getattr(self, "evaluations", 0) + (len(examples) == 30)
            logits = super().forward(model, examples)
            return logits * math.nan if self.evaluations == 5 and len(examples) == 30 else logits

    model, task = blobs()
    task.__class__ = Fails
    settings["objective"] = objective
    result = zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    (rollback,) = trajectory.read(tmp_path / "trajectory.jsonl").rollbacks
    assert "NaN" in rollback.why
    assert rollback.at % settings["eval_every"] == 0
    assert result.stop == {"steps": 30}


def test_a_step_made_again_with_smaller_forwards_keeps_its_bound(blobs, settings):
    model, task = blobs()
    chosen = settings_from({k: v for k, v in settings.items() if k != "quiet"})
    optimizer = make_optimizer(model, chosen, maximize=False)
    metric = zoopt.get_objective("cross_entropy")
    fitting = Fitting(lambda: task.batch_size, lambda rows: setattr(task, "batch_size", rows))
    stepper = Stepper(model, task, metric, chosen, optimizer, fitting)
    records = []
    optimizer.recorder = records.append
    stepper.step(lambda: None)
    forward, failures = task.forward, [torch.OutOfMemoryError("CUDA out of memory")]

    def forward_once_failing(model, examples):
        if failures:
            raise failures.pop()
        return forward(model, examples)

    def restore():
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), base, strict=True):
                parameter.copy_(value)
        optimizer.steps = 0
        optimizer.repeat(records[0])

    base = [p.clone() for p in blobs()[0].parameters()]
    task.forward, optimizer.clip = forward_once_failing, 1e-3
    stepper.step(restore)
    assert [record.clip for record in records] == [None, 1e-3]


class InTwoCalls(zoopt.ZOEstimator):
    """Evaluates θ first and its probes afterwards, in a call of their own."""

    def estimate(self, evaluate, seeds, eps):
        (base,) = evaluate([Probe(())])
        moved = evaluate([Probe(((seed, eps),)) for seed in seeds])
        slopes = tuple((loss - base) / eps / len(seeds) for loss in moved)
        return GradientEstimate(tuple(seeds), slopes, (base, *moved))


def test_the_steps_of_an_estimator_that_probes_in_several_calls_are_followed():
    x = torch.nn.Parameter(torch.ones(3))
    optimizer = zoopt.ZOOptimizer([x], lr=0.1, estimator=InTwoCalls(n=2))
    records, seen = [], Guard(10.0)
    optimizer.recorder = records.append
    for _ in range(WINDOW):
        optimizer.step(lambda: x.square().sum())
        seen.see(optimizer.estimated)
    followed = Guard(10.0)
    followed.follow(records, 0, optimizer.estimator)
    assert followed.bound == seen.bound is not None
