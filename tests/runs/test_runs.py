"""Runs looked into, compared and merged."""

import json
from dataclasses import replace

import pytest
import torch

import zoopt
from zoopt import trajectory
from zoopt.runs.difference import difference
from zoopt.runs.inspecting import RunFiles, account
from zoopt.tuning import ending

SETTINGS = {
    "objective": "cross_entropy",
    "lr": 0.1,
    "eps": 0.01,
    "steps": 6,
    "batch_size": 4,
    "eval_every": 3,
    "quiet": True,
}


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(ending, "write_report", lambda *args: None)


def base():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def tuned(folder, dtype=torch.float32, **changes):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 3, generator=generator)
    rows = [{"x": r.tolist(), "label": "ab"[int(r[0] > 0)]} for r in x]
    task = zoopt.HeadClassification(
        rows[:14],
        rows[14:],
        labels=["a", "b"],
        collate=lambda batch: torch.tensor([row["x"] for row in batch], dtype=dtype),
    )
    model = base()
    return model, zoopt.tune(model, task=task, run_dir=folder, **{**SETTINGS, **changes})


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def last(folder):
    model = base()
    zoopt.replay(model, folder)
    return vector(model)


def test_an_account_says_what_the_files_say(tmp_path):
    _, result = tuned(tmp_path, lr=0.2)
    told = account(RunFiles.read(tmp_path))
    assert told["steps"] == "6 of 6"
    assert told["stopped"] == "steps (6)"
    assert told["best"].startswith(f"{result.best_score:.6g} at step {result.best_step} ")
    assert told["learning rate"] == "0.2 to 0.0333"
    assert "lr=0.2" in told["settings"]
    assert "batch_size=4" in told["settings"]
    assert "weight_decay" not in told["settings"], "a default"
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    forwards = max(line.get("forwards", 0) for line in lines)
    assert told["forwards"] == f"{forwards} minibatch evaluations"
    assert torch.__version__ in told["versions"]
    assert "trajectory.jsonl" in told["folder"]


def test_an_account_of_a_run_that_was_killed_says_so(tmp_path):
    tuned(tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:-1]))
    assert account(RunFiles.read(tmp_path))["stopped"].startswith("not finished")


def test_an_account_has_rollbacks_and_smaller_forwards(tmp_path):
    tuned(tmp_path, steps=2)
    log = trajectory.Trajectory(tmp_path / "trajectory.jsonl")
    log.roll_back(trajectory.Rollback(to=1, at=2, why="worse"))
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "forward_size": 2}\n')
    told = account(RunFiles.read(tmp_path))
    assert told["rollbacks"] == "from step 2 to 1 (worse)"
    assert told["out of memory"] == "2 rows per forward from step 1"
    assert told["steps"] == "1 of 2"


@pytest.mark.parametrize("objective", ["cross_entropy", "accuracy"])
def test_an_account_has_the_search_for_rates(tmp_path, objective):
    tuned(tmp_path, lr="auto", eps="auto", steps=9, objective=objective)
    told = account(RunFiles.read(tmp_path))
    found = json.loads((tmp_path / "auto.json").read_text())
    assert told["rates found"].startswith(f"lr {found['lr']:g}, eps {found['eps']:g}, with ")
    assert f" {found['forwards']:,} minibatch evaluations" in told["rates found"]
    for eps in found["errors"]:
        assert f" at {eps}" in told["why this eps"]
    assert f"expected {found['measured']['expected']:.3g}" in told["why this lr"]
    sign = -1 if objective == "accuracy" else 1
    for lap in found["laps"]:
        assert f"{sign * lap['score']:.4g} at lr {lap['lr']:g}" in told["why this lr"]
    assert f"{sign * found['base']:.4g} before any step" in told["why this lr"]
    assert (sign * found["base"]) > 0


@pytest.mark.parametrize("given", ["lr", "eps"])
def test_an_account_says_nothing_of_rates_that_were_given(tmp_path, given):
    tuned(tmp_path, **{"lr": "auto", "eps": "auto", given: 0.01})
    told = account(RunFiles.read(tmp_path))
    assert f"why this {given}" not in told
    assert len([what for what in told if what.startswith("why this")]) == 1


def test_scores_from_which_a_run_went_back_do_not_count(tmp_path):
    tuned(tmp_path)
    run = RunFiles.read(tmp_path)
    steps = sorted(run.scores)
    back = {"step": steps[1], "rollback": {"to": steps[1], "at": steps[-1], "why": "test"}}
    assert list(replace(run, metrics=[*run.metrics, back]).scores) == steps[:2]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(zoopt.TrajectoryError, match="is it the folder of a run"):
        RunFiles.read(tmp_path)


@pytest.mark.parametrize("line", ['{"step": 1, "val', "7", '{"value": 0.5}'])
def test_damaged_metrics_are_named_and_a_torn_last_line_is_left_out(tmp_path, line):
    tuned(tmp_path, steps=1)
    metrics = tmp_path / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + line)
    assert account(RunFiles.read(tmp_path))["stopped"] == "steps (1)"
    metrics.write_text(line + "\n" + whole)
    with pytest.raises(zoopt.TrajectoryError, match=r"line 1 of \S+metrics\.jsonl is damaged"):
        RunFiles.read(tmp_path)


def test_runs_with_the_same_settings_do_not_differ(tmp_path):
    tuned(tmp_path / "a")
    tuned(tmp_path / "b")
    assert difference(RunFiles.read(tmp_path / "a"), RunFiles.read(tmp_path / "b")) == {}


def test_a_difference_says_where_runs_part(tmp_path):
    tuned(tmp_path / "a")
    tuned(tmp_path / "b", lr=0.2, steps=4, eval_every=2)
    tuned(tmp_path / "c", seed=1)
    a, b, c = (RunFiles.read(tmp_path / name) for name in "abc")
    found = difference(a, b)
    assert found["lr"] == ("0.1", "0.2")
    assert found["steps"] == ("6", "4")
    assert "first step with other seeds: 0" not in found
    assert "first step with other losses: 1" in found, "the first step's losses are of the base"
    assert found["score at step 3"][1] == "none"
    assert "first step with other seeds: 0" in difference(a, c)


def test_a_merged_model_has_the_sum_of_the_updates(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for seed, folder in enumerate(folders):
        tuned(folder, seed=seed, engine=("inplace", "overlay", "copy")[seed])
    model, start = base(), vector(base())
    assert zoopt.merge(model, folders) == 18
    expected = start + sum(last(folder) - start for folder in folders)
    torch.testing.assert_close(vector(model), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(vector(model), last(folders[0]), atol=1e-3)


def test_what_parameters_in_half_precision_do_not_show_is_added_up_too(tmp_path, monkeypatch):
    """Updates of a bias of 1 in bf16, each too small to be seen, are seen in the sum."""

    plain = base

    def ones():
        model = plain().bfloat16()
        torch.nn.init.ones_(model[2].bias)
        return model

    monkeypatch.setitem(globals(), "base", ones)
    tuned(tmp_path, params="2.bias", lr=0.04, dtype=torch.bfloat16)
    assert torch.equal(last(tmp_path), vector(ones())), "one run alone"
    model = ones()
    zoopt.merge(model, [tmp_path] * 8)
    assert (model[2].bias - 1).abs().max() > 0.01


def test_runs_on_other_parameters_of_one_base_are_merged(tmp_path):
    for folder, params in (("a", "0.*"), ("b", "2.*")):
        tuned(tmp_path / folder, params=params)
    model = base()
    zoopt.merge(model, [tmp_path / "a", tmp_path / "b"])
    a, b = last(tmp_path / "a"), last(tmp_path / "b")
    assert torch.equal(vector(model)[:16], a[:16])
    assert torch.equal(vector(model)[16:], b[16:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update": "adam"}, "updated by adam, whose updates depend on earlier ones"),
        ({"weight_decay": 0.1}, "has weight_decay=0.1, so its updates depend on θ"),
    ],
)
def test_runs_whose_updates_do_not_add_up_are_refused(tmp_path, changes, message):
    tuned(tmp_path / "a")
    tuned(tmp_path / "b", **changes)
    model = base()
    with pytest.raises(zoopt.TrajectoryError, match=message):
        zoopt.merge(model, [tmp_path / "a", tmp_path / "b"])
    assert torch.equal(vector(model), vector(base()))


def test_another_base_is_refused_naming_the_run_and_both(tmp_path):
    tuned(tmp_path / "a")
    tuned(tmp_path / "b")
    model = base()
    with torch.no_grad():
        model[0].bias += 1
    before = vector(model)
    with pytest.raises(zoopt.TrajectoryError, match=r"a: .* fingerprint \w{12}, .* has \w{12}"):
        zoopt.merge(model, [tmp_path / "a", tmp_path / "b"])
    assert torch.equal(vector(model), before)
    with pytest.raises(ValueError, match="two or more runs, got 1"):
        zoopt.merge(model, [tmp_path / "a"])


def test_how_a_run_without_metrics_ended_is_not_told(tmp_path):
    tuned(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    assert account(RunFiles.read(tmp_path))["stopped"].startswith("unknown")
