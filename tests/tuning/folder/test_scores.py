"""The best evaluation is the same one for a run, its patience, its recovery and its summary."""

import math

import pytest

import zoopt
from zoopt.runs.inspecting import RunFiles
from zoopt.trajectory import checkpoint
from zoopt.tuning.folder.metrics_file import Metrics
from zoopt.tuning.folder.scores import best_of
from zoopt.tuning.stepping import Stepper


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({}, None),
        ({0: None, 5: None}, 5),
        ({0: 1.0, 5: 2.0, 9: 2.0}, 5),
        ({9: 2.0, 5: 2.0}, 5),
        ({0: math.nan, 5: -1.0, 9: math.inf}, 5),
        ({0: math.nan, 5: math.nan}, 0),
    ],
)
def test_the_best_is_the_earliest_of_the_highest_that_are_finite(scores, best):
    assert best_of(scores, higher_is_better=True) == best
    turned = {step: score and -score for step, score in scores.items()}
    assert best_of(turned, higher_is_better=False) == best


def test_a_tie_is_decided_alike_by_a_run_a_resumed_run_and_a_summary(
    blobs, settings, tmp_path, monkeypatch, capsys
):
    """The evaluation that is repeated ties with a later one, and the model becomes that of it."""
    tied = {0: 3.0, 10: 1.0, 20: 2.0, 30: 1.0}
    scores, path = {**tied, 10: 4.0}, tmp_path / "metrics.jsonl"
    monkeypatch.setattr(Stepper, "score", lambda self, rows: scores[self.optimizer.steps])
    model, task = blobs()
    assert zoopt.tune(model, task=task, run_dir=tmp_path, **settings).best_step == 30
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"step": 10, "dev"' not in line))
    for name in ("snapshot.safetensors", "snapshot.earlier.safetensors"):
        (tmp_path / name).unlink(missing_ok=True)
    scores = tied
    for _ in range(2):
        model, task = blobs()
        result = zoopt.tune(model, task=task, run_dir=tmp_path, **settings | {"quiet": False})
        assert result.best_step == 10
    assert "damaged" not in capsys.readouterr().out
    assert checkpoint.step_of(tmp_path / "best.safetensors", -1) == 10
    assert RunFiles.read(tmp_path).best == (10, 1.0)
    assert Metrics(path, 30).best_step(higher_is_better=False) == 10
