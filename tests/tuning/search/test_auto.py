"""Rates that a run finds itself: against closed forms, and as part of a run that may be killed."""

import json
import math
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

import zoopt
from zoopt import trajectory
from zoopt.seeds import direction_seeds
from zoopt.tuning.search import auto
from zoopt.tuning.search.race import APART, length_of, race
from zoopt.tuning.search.reach import reach
from zoopt.tuning.search.slopes import LADDER, Ladder, Slopes, best_rate
from zoopt.tuning.stepping import Stepper
from zoopt.updates import SGD, Adam, Momentum, Projected


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def slopes_of(loss, d=50, directions=6, scales=LADDER, noise=0.0):
    """Slopes along Rademacher directions at θ = 0, of a function of θ."""
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(directions):
        z = rng.choice([-1.0, 1.0], d)
        places = [np.zeros(d), *(side * e * z for e in scales for side in (1, -1))]
        losses.append([loss(place) + noise * rng.standard_normal() for place in places])
    return Slopes.of(scales, losses)


G = np.linspace(-1, 1, 50)


def test_of_a_quadratic_slope_and_curvature_are_exact():
    h = np.linspace(0.1, 2.0, 50)
    slopes = slopes_of(lambda x: x @ G + x @ (h * x) / 2)
    assert slopes.best_scale() >= 1e-1
    assert slopes.curvature() == pytest.approx(h.sum())
    assert slopes.slope() == pytest.approx(np.linalg.norm(G), rel=0.5)


def test_noise_takes_the_small_scales_and_higher_terms_the_large_ones():
    cubic = slopes_of(lambda x: x @ G + 30 * (x @ G) ** 3, noise=1e-6)
    true = slopes_of(lambda x: x @ G).first[:, 0]
    errors = np.sqrt(((cubic.first - true[:, None]) ** 2).mean(axis=0))
    assert errors[LADDER.index(cubic.best_scale())] < 0.1 * np.sqrt((true**2).mean())
    assert slopes_of(lambda x: x @ G, noise=1e-2).best_scale() == LADDER[-1]


def test_the_error_is_what_it_says_where_noise_rules():
    noisy = slopes_of(lambda x: x @ G, directions=200, noise=0.1)
    true = slopes_of(lambda x: x @ G, directions=200).first[:, 0]
    measured = np.sqrt(((noisy.first - true[:, None]) ** 2).mean(axis=0))
    assert noisy.errors()[:3] == pytest.approx(measured[:3], rel=0.25)


def test_where_both_sides_are_worse_a_scale_says_nothing_of_the_slope():
    saturated = slopes_of(lambda x: 0.02 * (x @ G) + min(1.0, float(x @ x)))
    assert saturated.errors()[-1] == math.inf
    assert saturated.best_scale() < 0.1


def test_of_an_objective_that_moves_in_jumps_scales_that_see_them_are_taken():
    slopes = slopes_of(lambda x: round(20 * float(x @ G)) / 20)
    assert slopes.best_scale() >= 3e-2


def test_an_objective_that_never_changes_is_an_error():
    with pytest.raises(ValueError, match=r"do not measure a slope: .* larger batches"):
        slopes_of(lambda x: 1.0).best_scale()
    flat = slopes_of(lambda x: 1.0, scales=(1e-2,))
    with pytest.raises(ValueError, match=r"eps 0\.01"):
        best_rate(flat, [[0.0]], 1.0)


@pytest.mark.parametrize(("n", "signal"), [(1, 1.0), (4, 1.0), (1, 0.25)])
def test_for_spsa_the_best_rate_is_n_r_over_the_trace(n, signal):
    slopes = slopes_of(lambda x: x @ G + x @ x, scales=(1e-2,))
    estimates = [[value / n] * n for value in slopes.first[:, 0]]
    assert best_rate(slopes, estimates, signal) == pytest.approx(n * signal / 100)


def test_a_curvature_within_its_error_of_zero_is_replaced_by_its_size():
    steep = Slopes((1.0,), np.ones((4, 1)), np.array([[9.0], [11.0], [10.0], [10.0]]))
    assert steep.curvature() == 10.0
    saddle = Slopes((1.0,), np.ones((4, 1)), np.array([[5.0], [-5.0], [5.0], [-6.0]]))
    assert 5.0 < saddle.curvature() < 6.0


def test_at_the_best_rate_spsa_gains_most():
    d, steps = 64, 40
    h = torch.ones(d)
    ends = {}
    for factor in (0.25, 1.0, 4.0):
        x = torch.nn.Parameter(torch.ones(d))
        opt = zoopt.ZOOptimizer(
            [x], lr=factor / d, estimator=zoopt.SPSA(eps=1e-2, direction="rademacher"), seed=1
        )
        for _ in range(steps):
            opt.step(lambda x=x: (h * x**2).sum() / 2)
        ends[factor] = float((x.detach() ** 2).sum())
    assert ends[1.0] == min(ends.values())


def test_a_ladder_asks_for_both_sides_at_every_scale():
    x = torch.nn.Parameter(torch.zeros(3))
    ladder = Ladder((0.1, 0.3), "rademacher", "copy")
    opt = zoopt.ZOOptimizer([x], estimator=ladder)
    opt.estimate(lambda: x.sum())
    (seed,) = direction_seeds(0, 0, 1)
    assert opt.estimated.seeds == (seed,)
    base, *sides = opt.estimated.losses
    assert opt.estimated.coefficients == ((sides[0] - sides[1]) / 0.2,)
    assert base == 0.0
    assert sides[0] == pytest.approx(-sides[1])
    assert sides[2] == pytest.approx(3 * sides[0], rel=1e-5)


def parabola(best):
    """What trials of a race score whose best rate is known; no rate at all scores 1."""
    return lambda lr: (lr / best - 1) ** 2


@pytest.mark.parametrize("best", [1.0, 0.7, 2.0, 4.0, 0.3, 0.2, 0.06])
def test_a_race_finds_the_best_rate_also_far_below_the_expected_one(best):
    winner, laps = race(1.0, 1.0, parabola(best))
    assert abs(math.log2(winner.lr / best)) <= 0.5
    rates = sorted(lap.lr for lap in laps)
    assert len(rates) == 4
    assert all(round(math.log(b / a, APART), 1) in (0.5, 1, 2) for a, b in pairwise(rates))


def test_the_last_trial_is_halfway_to_a_rate_that_diverged():
    winner, laps = race(1.0, 1.0, lambda lr: math.inf if lr > 1.5 else 1.0 - lr / 2)
    assert [lap.lr for lap in laps] == [1.0, 2.0, 0.5, 1.41]
    assert winner.lr == 1.41


def test_where_no_rate_beats_none_the_race_is_void():
    """The first directions point the wrong way: the less a trial moves, the better it looks."""
    winner, laps = race(1.0, 0.5, lambda lr: 0.5 + 0.04 * lr)
    assert winner.lr == 1.0
    assert min(lap.lr for lap in laps) < 0.1


def test_a_void_race_is_not_won_by_a_rate_that_did_harm():
    """One that diverged at once, so that it does not look as if it did later, least of all."""
    scores = {1.0: math.inf, 0.25: 1.3, 0.0625: 0.53, 0.0156: 0.51}
    winner, laps = race(1.0, 0.5, scores.__getitem__)
    assert [lap.lr for lap in laps] == list(scores)
    assert winner.lr == 0.0625


def test_where_all_did_harm_the_lowest_rate_wins():
    assert race(1.0, 0.5, lambda lr: 2.0 - lr)[0].lr == 0.0156


def test_trials_that_are_not_finite_lose():
    winner, _ = race(1.0, 0.5, lambda lr: math.inf if lr > 0.3 else 0.4 - lr)
    assert winner.lr == 0.25


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(SGD(), 1.0), (Projected(), 1.0), (Adam(beta1=0.0, beta2=0.5), 500), (Momentum(0.5), 1.0)],
)
def test_how_far_a_rule_goes_beside_sgd(rule, expected):
    """Adam divides by what it is given, momentum only spreads it over steps."""
    size = 2e-3 / math.sqrt(2)  # two directions: a component has a root mean square of 2e-3
    given = [[size, -size], [-size, size], [-size, -size]]
    assert reach(rule, given) == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("rule", [SGD, lambda: Momentum(0.5), lambda: Projected(low=2.0)])
def test_how_far_a_rule_goes_does_not_depend_on_units(rule, size):
    assert reach(rule(), [[size], [-size]]) == pytest.approx(1.0, rel=0.25)


def test_a_rule_goes_as_far_as_sgd_where_nothing_moves():
    assert reach(Adam(), [[0.0], [0.0]]) == 1.0


@pytest.mark.parametrize("update", ["adam", "momentum"])
def test_a_run_with_another_rule_finds_a_rate_of_its_own(blobs, settings, tmp_path, update):
    settings |= {"lr": "auto", "eps": "auto", "steps": 80, "update": update}
    model, task = blobs()
    result = zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    assert result.report.row("accuracy").gain.value > 0.3
    choice = json.loads((tmp_path / "auto.json").read_text())
    assert choice["laps"][0]["lr"] == pytest.approx(choice["measured"]["expected"], rel=0.01)


@pytest.mark.parametrize("engine", ["inplace", "overlay"])
def test_a_run_finds_its_rates_learns_and_replays(blobs, settings, tmp_path, engine):
    settings |= {"lr": "auto", "eps": "auto", "steps": 80, "engine": engine}
    model, task = blobs()
    told = []
    result = zoopt.tune(
        model,
        task=task,
        run_dir=tmp_path,
        callbacks=[lambda metrics, step: told.append(step)],
        **settings,
    )
    assert told == list(range(1, 81))
    assert result.stop == {"steps": 80}
    assert result.report.row("accuracy").gain.value > 0.4
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (said,) = [line for line in lines if "auto" in line]
    choice = said["auto"]
    assert choice["eps"] in LADDER
    assert choice["lr"] in [lap["lr"] for lap in choice["laps"]]
    assert choice["measured"]["expected"] > 0
    steps = [line for line in lines if "value" in line]
    assert [line["step"] for line in steps] == list(range(1, 81))
    assert steps[0]["lr"] == choice["lr"]
    # Every evaluation of a minibatch is counted: the search's, the noise floor's two, two a step.
    assert steps[-1]["forwards"] == choice["forwards"] + 2 + 2 * 80
    base, _ = blobs()
    zoopt.replay(base, tmp_path, step="best")
    assert torch.equal(weights(base), weights(model))


def test_the_run_is_the_one_that_the_found_rates_give(blobs, settings, tmp_path):
    settings |= {"steps": 40}
    found, task = blobs()
    zoopt.tune(found, task=task, run_dir=tmp_path / "a", **{**settings, "lr": "auto"})
    records = trajectory.read(tmp_path / "a" / "trajectory.jsonl").records
    given, task = blobs()
    zoopt.tune(given, task=task, run_dir=tmp_path / "b", **{**settings, "lr": records[0].lr[0]})
    assert trajectory.read(tmp_path / "b" / "trajectory.jsonl").records == records
    assert torch.equal(weights(found), weights(given))


def test_eps_alone_may_be_found(blobs, settings, tmp_path):
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, **{**settings, "eps": "auto"})
    choice = json.loads((tmp_path / "auto.json").read_text())
    assert choice["laps"] == []
    records = trajectory.read(tmp_path / "trajectory.jsonl").records
    assert {record.eps for record in records} == {(choice["eps"],)}
    assert records[0].lr == (settings["lr"],)
    assert not (tmp_path / "auto" / "base.safetensors").exists()


def test_scales_at_which_the_objective_is_not_finite_are_left_out(tmp_path):
    model = torch.nn.Linear(3, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.1)
    objective = zoopt.metric(
        lambda model, batch: model.weight.sum() - torch.log(0.5 - (model.weight**2).sum()),
        higher_is_better=False,
    )
    options = {"objective": objective, "lr": 1e-3, "eps": "auto", "steps": 2, "quiet": True}
    zoopt.tune(model, train=[0], run_dir=tmp_path, **options)
    choice = json.loads((tmp_path / "auto.json").read_text())
    assert 0.001 <= choice["eps"] <= 0.1
    assert "0.1" in choice["errors"]
    assert "1" not in choice["errors"]


class Interrupting(zoopt.HeadClassification):
    """A task whose n-th forward is interrupted."""

    def forward(self, model, examples):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().forward(model, examples)


@pytest.mark.parametrize("forwards", [9, 90, 150])
def test_an_interrupted_search_goes_on_where_it_was(blobs, settings, tmp_path, forwards):
    settings |= {"lr": "auto", "eps": "auto", "steps": 40}
    whole, task = blobs()
    zoopt.tune(whole, task=task, run_dir=tmp_path / "whole", **settings)
    model, task = blobs()
    before = weights(model)
    task.__class__, task.left = Interrupting, forwards
    with pytest.raises(KeyboardInterrupt):
        zoopt.tune(model, task=task, run_dir=tmp_path / "parts", **settings)
    assert torch.equal(weights(model), before)
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path / "parts", **settings)
    assert torch.equal(weights(model), weights(whole))
    for name in ("auto.json", "trajectory.jsonl"):
        texts = [(tmp_path / part / name).read_text() for part in ("parts", "whole")]
        assert texts[0] == texts[1]


class Tight(zoopt.HeadClassification):
    """A task of whose forwards those of more than four rows fail, from the n-th one on."""

    def forward(self, model, examples):
        self.made += 1
        if self.made >= self.fails and len(examples) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(model, examples)


@pytest.mark.parametrize("fails", [20, 110, 150])
def test_a_search_goes_on_with_smaller_forwards(blobs, settings, tmp_path, fails):
    """Memory runs out in a ladder, at the chosen scale, or in a trial."""
    settings |= {"lr": "auto", "eps": "auto", "steps": 40}
    plenty, task = blobs()
    zoopt.tune(plenty, task=task, run_dir=tmp_path / "plenty", **settings)
    model, task = blobs()
    task.__class__, task.made, task.fails, task.batch_size = Tight, 0, fails, 8
    zoopt.tune(model, task=task, run_dir=tmp_path / "tight", **settings)
    noted = (tmp_path / "tight" / "metrics.jsonl").read_text()
    assert noted.count('{"step": 0, "forward_size": 4}\n') == 1
    torch.testing.assert_close(weights(model), weights(plenty), rtol=1e-2, atol=1e-3)
    base, _ = blobs()
    zoopt.replay(base, tmp_path / "tight", step="best")
    assert torch.equal(weights(base), weights(model))


def test_an_interrupted_search_keeps_its_smaller_forwards(blobs, settings, tmp_path):
    settings |= {"lr": "auto", "eps": "auto", "steps": 40}
    model, task = blobs()
    task.__class__, task.made, task.fails, task.batch_size = Tight, 0, 30, 8
    forward = task.forward

    def interrupted(model, examples):
        if task.made == 60:
            raise KeyboardInterrupt
        return forward(model, examples)

    task.forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    model, task = blobs()
    task.__class__, task.made, task.fails, task.batch_size = Tight, 0, 1, 8
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    assert (tmp_path / "metrics.jsonl").read_text().count("forward_size") == 1


@pytest.mark.parametrize("end", [1, 10, 13])
def test_a_callback_ends_a_run_among_steps_that_it_takes_over(blobs, settings, tmp_path, end):
    """Told of one step after the other, it is asked after each whether to go on."""

    class Ends(zoopt.Callback):
        def __init__(self):
            self.told = []

        def on_step(self, metrics, step):
            self.told.append((step, metrics["value"]))

        def on_evaluation(self, metrics, step):
            self.told.append((step, metrics["dev"]))

        def stop(self):
            return {"enough": end} if self.told[-1][0] == end and not resumed else {}

    settings |= {"lr": "auto", "steps": 40}  # of which 13 are a trial's
    whole, task = blobs()
    resumed, told = True, [Ends(), Ends()]
    zoopt.tune(whole, task=task, run_dir=tmp_path / "whole", callbacks=[told[0]], **settings)
    for resumed in (False, True):
        model, task = blobs()
        asked = {"task": task, "run_dir": tmp_path / "parts", "callbacks": [told[1]]}
        result = zoopt.tune(model, **asked, **settings)
        if not resumed:
            assert (result.stop, result.steps) == ({"enough": end}, end)
            assert len(trajectory.read(tmp_path / "parts" / "trajectory.jsonl").records) == end
    assert torch.equal(weights(model), weights(whole))
    assert told[1].told == told[0].told
    logs = [(tmp_path / part / "trajectory.jsonl").read_text() for part in ("parts", "whole")]
    assert logs[0] == logs[1]
    assert forwards(tmp_path / "parts") == forwards(tmp_path / "whole")


@pytest.mark.parametrize("steps", [3, 8])
def test_a_search_counts_the_batches_that_judge_its_trials(
    blobs, settings, tmp_path, monkeypatch, steps
):
    """A run of few steps has few batches, so fewer are evaluated."""
    judged = []
    score = Stepper.score

    def counted(stepper, examples):
        if len(examples) % settings["batch_size"] == 0:  # not the 30 development examples
            judged.append(len(examples) // settings["batch_size"])
        return score(stepper, examples)

    monkeypatch.setattr(Stepper, "score", counted)
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings | {"lr": "auto", "steps": steps})
    choice = json.loads((tmp_path / "auto.json").read_text())
    assert judged == [min(7, steps)] * (1 + len(choice["laps"]))
    slopes = 3 * 10 + 2 * 2
    trials = 2 * length_of(steps) * (len(choice["laps"]) - 1)
    assert choice["forwards"] == slopes + trials + sum(judged)


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_a_trial_that_diverges_loses_whichever_way_is_better(
    tmp_path, monkeypatch, higher_is_better
):
    """Of ±θ²/2 in one dimension: at η = 2.1 a step multiplies θ by −1.1."""
    monkeypatch.setattr(auto, "best_rate", lambda *measured: 2.1)
    sign = -1 if higher_is_better else 1
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    objective = zoopt.metric(
        lambda model, batch: sign * float(model.weight.detach() ** 2) / 2,
        higher_is_better=higher_is_better,
    )
    options = {"lr": "auto", "eps": 1e-2, "steps": 90, "clip_ratio": 0.0, "quiet": True}
    zoopt.tune(
        model,
        train=[0],
        objective=objective,
        direction="rademacher",
        schedule="constant",
        run_dir=tmp_path,
        **options,
    )
    laps = json.loads((tmp_path / "auto.json").read_text())["laps"]
    assert [lap["lr"] for lap in laps if lap["score"] == math.inf] == [2.1]
    log = trajectory.read(tmp_path / "auto" / "lr-2.1" / "trajectory.jsonl")
    assert len(log.records) < length_of(90), "the guard ends it"


def test_a_search_reads_the_log_of_a_trial_once(blobs, settings, tmp_path, monkeypatch):
    """Once more the winner's, whose steps the run takes over."""
    paths = []
    read = trajectory.read
    monkeypatch.setattr(trajectory, "read", lambda path: paths.append(path) or read(path))
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings | {"lr": "auto"})
    choice = json.loads((tmp_path / "auto.json").read_text())
    times = {lap["lr"]: 1 + (lap["lr"] == choice["lr"]) for lap in choice["laps"]}
    trials = {lr: tmp_path / "auto" / f"lr-{lr:g}" / "trajectory.jsonl" for lr in times}
    assert {lr: paths.count(path) for lr, path in trials.items()} == times


def forwards(run_dir):
    """What each step says has been evaluated so far."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["forwards"] for line in lines if "value" in line}


def test_a_run_killed_right_after_its_search_begins_with_the_winner(blobs, settings, tmp_path):
    settings |= {"lr": "auto", "steps": 40}
    whole, task = blobs()
    zoopt.tune(whole, task=task, run_dir=tmp_path / "run", **settings)
    log = (tmp_path / "run" / "trajectory.jsonl").read_text()
    kept = tmp_path / "killed"
    kept.mkdir()
    for name in ("config.yaml", "auto.json", "before.npz", "metrics.jsonl"):
        shutil.copy(tmp_path / "run" / name, kept / name)
    shutil.copytree(tmp_path / "run" / "auto", kept / "auto")
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=kept, **settings)
    assert (kept / "trajectory.jsonl").read_text() == log
    counts = [forwards(tmp_path / "run"), forwards(kept)]
    assert counts[0] == counts[1]
    assert torch.equal(weights(model), weights(whole))


def test_comparisons_have_no_numbers_to_find_rates_with(blobs, settings, tmp_path):
    model, task = blobs()
    objective = zoopt.comparison(lambda a, b: 0.0, needs="scores", name="tie")
    with pytest.raises(ValueError, match=r"only compares.*give both"):
        zoopt.tune(
            model,
            task=task,
            run_dir=tmp_path,
            **{**settings, "objective": objective, "lr": "auto"},
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": "automatic"}, "lr='automatic' must be a positive number, or 'auto'"),
        ({"eps": 0.0}, "eps=0.0 must be a positive"),
        ({"eps_schedule": "cosine"}, "eps_schedule"),
        ({"n_final": -1}, "n_final=-1 must be 0"),
        ({"estimator": "spsa", "n_final": 3}, "use 'nspsa'"),
    ],
)
def test_wrong_rates_are_refused(blobs, settings, tmp_path, change, message):
    model, task = blobs()
    with pytest.raises(ValueError, match=message):
        zoopt.tune(model, task=task, run_dir=tmp_path, **{**settings, **change})


def test_schedules_run_their_course_and_replay(blobs, settings, tmp_path):
    settings |= {"eps_schedule": "linear", "schedule": "power", "n": 2, "n_final": 6, "steps": 9}
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path, estimator="nspsa", **settings)
    records = trajectory.read(tmp_path / "trajectory.jsonl").records
    assert [len(record.seeds) for record in records] == [2, 2, 3, 4, 4, 4, 5, 6, 6]
    assert [record.eps[0] for record in records] == pytest.approx(
        [0.01 * (1 - 0.9 * k / 9) for k in range(9)]
    )
    ratio = records[8].lr[0] / records[0].lr[0]
    assert ratio == pytest.approx(((9 / 10 + 1) / (8 + 9 / 10 + 1)) ** 0.602)
    base, _ = blobs()
    zoopt.replay(base, tmp_path, step="best")
    assert torch.equal(weights(base), weights(model))
