"""Callbacks and sinks: told of every step once, able to end a run, unable to spoil one."""

import csv
import json
import logging
import math
import time

import numpy as np
import pytest
import torch

import zoopt
from zoopt import trajectory
from zoopt.runs.inspecting import RunFiles
from zoopt.tuning import sinks
from zoopt.tuning.faults.patience import Patience


class Follower(zoopt.Callback):
    def __init__(self, until=None):
        self.steps, self.evaluations, self.closed, self.until = [], [], 0, until

    def on_step(self, metrics, step):
        assert metrics["step"] == step
        self.steps.append((step, metrics["value"]))

    def on_evaluation(self, metrics, step):
        self.evaluations.append((step, metrics["dev"]))

    def stop(self):
        return {"enough": self.until} if self.until and len(self.steps) >= self.until else {}

    def close(self):
        self.closed += 1


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps_of(folder):
    return [(e["step"], e["value"]) for e in lines(folder) if "value" in e]


def evaluations_of(folder):
    return [(e["step"], e["dev"]) for e in lines(folder) if "dev" in e]


def test_a_callback_is_told_what_the_metrics_have(blobs, settings, tmp_path):
    model, task = blobs()
    follower, seen = Follower(), []
    told = [follower, lambda metrics, step: seen.append(step)]
    zoopt.tune(model, task=task, run_dir=tmp_path, callbacks=told, **settings)
    assert follower.steps == steps_of(tmp_path)
    assert follower.evaluations == evaluations_of(tmp_path)
    assert seen == [*range(1, 31)]
    assert follower.closed == 1


def test_a_callback_ends_a_run_which_goes_on_without_it(blobs, settings, tmp_path):
    whole = Follower()
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path / "whole", callbacks=[whole], **settings)
    parts = Follower(until=7)
    model, task = blobs()
    result = zoopt.tune(model, task=task, run_dir=tmp_path / "a", callbacks=[parts], **settings)
    assert (result.stop, result.steps) == ({"enough": 7}, 7)
    parts.until = None
    model, task = blobs()
    zoopt.tune(model, task=task, run_dir=tmp_path / "a", callbacks=[parts], **settings)
    assert parts.steps == whole.steps
    assert parts.evaluations == whole.evaluations


def test_a_failing_callback_ends_the_run_and_loses_nothing(blobs, settings, tmp_path):
    def fails(metrics, step):
        if step == 5:
            raise ZeroDivisionError("mine")

    follower = Follower()
    model, task = blobs()
    with pytest.raises(ZeroDivisionError, match="mine"):
        zoopt.tune(model, task=task, run_dir=tmp_path, callbacks=[fails, follower], **settings)
    assert follower.closed == 1
    model, task = blobs()
    assert zoopt.tune(model, task=task, run_dir=tmp_path, **settings).stop == {"steps": 30}
    assert [step for step, _ in steps_of(tmp_path)] == [*range(1, 31)]


@pytest.mark.parametrize("wrong", [3, Follower, object()])
def test_what_is_no_callback_is_refused(blobs, settings, tmp_path, wrong):
    model, task = blobs()
    with pytest.raises(TypeError, match="neither a function on_step"):
        zoopt.tune(model, task=task, run_dir=tmp_path / "run", callbacks=[wrong], **settings)
    assert not (tmp_path / "run").exists()


def test_a_score_that_is_no_number_is_the_worst(blobs, settings, tmp_path, capsys):
    """Undefined on the model as it is, and then falling."""
    scores = iter([math.nan, 3.0, math.inf, 2.0])

    def falling(predictions, references):
        return next(scores) if len(references) == 30 else float(np.mean(predictions))

    model, task = blobs()
    settings |= {"objective": zoopt.Metric("falling", falling, False, "labels"), "quiet": False}
    task.test = ()
    result = zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    assert (result.best_step, result.best_score) == (30, 2.0)
    assert "step 0: falling of the development examples is nan" in capsys.readouterr().out
    assert RunFiles.read(tmp_path).best == (30, 2.0)
    seen = {0: math.nan, 1: 0.5, 2: 0.6, 3: 0.7}
    assert Patience(lambda: seen, 2, higher_is_better=True).stop() == {}


@pytest.mark.parametrize("interrupted", [True, False])
def test_without_development_examples_the_last_weights_are_kept(
    blobs, settings, tmp_path, interrupted
):
    model, task = blobs()
    task.dev = ()

    def on_step(metrics, step):
        if step == 17 and interrupted:
            raise KeyboardInterrupt

    class Ends(zoopt.Callback):
        def stop(self):
            return {"enough": 17} if made() == 17 and not interrupted else {}

    made = lambda: len(trajectory.read(tmp_path / "trajectory.jsonl").records)  # noqa: E731
    result = zoopt.tune(model, task=task, run_dir=tmp_path, callbacks=[on_step, Ends()], **settings)
    assert result.best_step == result.steps == made() == 17
    base, _ = blobs()
    zoopt.replay(base, tmp_path, step="last")
    assert all(map(torch.equal, base.state_dict().values(), model.state_dict().values()))
    again, _ = blobs()
    finished = zoopt.tune(again, task=task, run_dir=tmp_path, **settings)
    whole, other = blobs()
    other.dev = ()
    zoopt.tune(whole, task=other, run_dir=tmp_path / "whole", **settings)
    assert finished.best_step == 30
    for p, q in zip(again.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_names_are_shown_as_they_are(blobs, settings, tmp_path, capsys):
    model, task = blobs()
    name = "match(pattern='[/a-z]+[bold]')"
    metric = zoopt.Metric(name, lambda p, r: float(np.mean(p == r)), True, "labels")
    settings |= {"objective": metric, "quiet": False}
    zoopt.tune(model, task=task, run_dir=tmp_path, **settings)
    shown = "".join(capsys.readouterr().out.split())
    assert shown.count("[/a-z]+[bold]") >= 5


def test_patience_ends_a_run_where_it_would_have_ended_uninterrupted(blobs, settings, tmp_path):
    settings |= {"lr": 3.0, "eval_every": 5, "steps": 200, "patience": 2, "schedule": "constant"}
    for folder, until in (("whole", None), ("parts", 8), ("parts", None)):
        model, task = blobs()
        result = zoopt.tune(
            model, task=task, run_dir=tmp_path / folder, callbacks=[Follower(until)], **settings
        )
    scores = [score for _, score in evaluations_of(tmp_path / "whole")]
    assert len(scores) < 41, "the run was meant to stop getting better"
    assert min(scores) == scores[-3]
    assert evaluations_of(tmp_path / "whole") == evaluations_of(tmp_path / "parts")
    assert result.stop == {"patience": f"no better development score since step {result.best_step}"}
    again = zoopt.tune(
        blobs()[0], task=task, run_dir=tmp_path / "parts", **{**settings, "patience": 4}
    )
    assert again.steps > result.steps, "a run may go on with more patience"


def read_csv(folder):
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(
        [(int(r["step"]), float(r[name])) for r in rows if r[name]] for name in ("value", "dev")
    )


def read_tensorboard(folder):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder / "tensorboard"), {"scalars": 0}).Reload()
    return tuple(
        [(e.step, pytest.approx(e.value)) for e in found.Scalars(n)] for n in ("value", "dev")
    )


def leveldb_records(data):
    """The records of a log in LevelDB's format: CRC, length and kind, in blocks of 32 KiB."""
    at, parts = 7, b""  # after wandb's own file header
    while at + 7 <= len(data):
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole of a record, or its end
            yield parts
            parts = b""
        left = 32768 - at % 32768
        at += left if left < 7 else 0


def read_wandb(folder):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    rows = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for data in leveldb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({(i.key or i.nested_key[0]): json.loads(i.value_json) for i in items})
    return tuple([(r["step"], r[name]) for r in rows if name in r] for name in ("value", "dev"))


def read_mlflow(folder):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient((folder / "mlruns").absolute().as_uri())
    run = (folder / "mlflow.id").read_text()
    assert client.get_run(run).info.status == "FINISHED"
    assert client.get_run(run).data.params["lr"] == "0.05"
    return tuple(
        [(m.step, m.value) for m in client.get_metric_history(run, name)]
        for name in ("value", "dev")
    )


READERS = {
    "csv": read_csv,
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
}


@pytest.mark.filterwarnings("default")  # these packages have warnings of their own
@pytest.mark.parametrize("sink", sinks.SINKS)
def test_a_sink_has_each_step_once_also_after_a_resume(
    blobs, settings, tmp_path, sink, monkeypatch
):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if sink != "csv":
        pytest.importorskip(sink)
    settings |= {"steps": 12, "eval_every": 4, "sinks": (sink,)}
    for until in (6, None):
        model, task = blobs()
        follower = Follower(until)
        zoopt.tune(model, task=task, run_dir=tmp_path, callbacks=[follower], **settings)
        if sink == "wandb":
            time.sleep(1.1)  # its folders are named by the second
    values, scores = READERS[sink](tmp_path)
    assert values == steps_of(tmp_path)
    assert scores == evaluations_of(tmp_path)
    assert len(values) == 12


def test_a_sink_that_fails_is_told_of_once_and_the_run_goes_on(
    blobs, settings, tmp_path, monkeypatch, caplog
):
    calls = []

    class Failing(zoopt.Callback):
        def __init__(self, folder, config, entries):
            pass

        def on_step(self, metrics, step):
            calls.append(step)
            if step == 3:
                raise ConnectionError("nobody there")

    monkeypatch.setitem(sinks.SINKS, "csv", Failing)
    model, task = blobs()
    with caplog.at_level(logging.WARNING, "zoopt"):
        result = zoopt.tune(model, task=task, run_dir=tmp_path, sinks=("csv",), **settings)
    assert result.stop == {"steps": 30}
    assert calls == [1, 2, 3]
    assert [r.getMessage() for r in caplog.records if "nobody there" in r.getMessage()] == [
        "sink 'csv' failed (ConnectionError: nobody there); the run continues without it, and "
        "metrics.jsonl still gets all metrics"
    ]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("tensorbord", ValueError, "Did you mean 'tensorboard'"),
        ("wandb", ImportError, r"pip install 'zoopt-torch\[wandb\]'"),
    ],
)
def test_a_sink_that_cannot_be_is_told_before_anything_is_written(
    blobs, settings, tmp_path, monkeypatch, name, error, message
):
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    model, task = blobs()
    with pytest.raises(error, match=message):
        zoopt.tune(model, task=task, run_dir=tmp_path / "run", sinks=(name,), **settings)
    assert not (tmp_path / "run").exists()
