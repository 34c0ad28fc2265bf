"""What a run tunes may be a name, a path, a metric, or a function as its user has it."""

from functools import partial

import pytest
import torch
from sklearn.metrics import fbeta_score, make_scorer

import zoopt
from zoopt.objectives.resolve import resolve

ROWS = [{"x": float(x), "label": str(int(x > 3))} for x in range(8)]


@zoopt.register_objective("share_of_zeros", higher_is_better=True)
def share_of_zeros(predictions, references):
    return float((predictions == 0).mean())


def task():
    return zoopt.HeadClassification(
        ROWS,
        test=ROWS,
        labels=["0", "1"],
        collate=lambda batch: torch.tensor([[row["x"]] for row in batch]),
    )


def test_a_name_a_path_and_the_function_of_a_registered_objective_are_the_same():
    registered = zoopt.get_objective("accuracy")
    assert resolve("accuracy") is registered
    assert resolve("zoopt_objectives.classification:accuracy") is registered
    assert resolve(registered) is registered
    assert resolve(share_of_zeros) is zoopt.get_objective("share_of_zeros")


def test_a_path_to_a_function_of_another_convention_is_read():
    assert resolve("sklearn.metrics:f1_score")([1, 0, 1], [1, 1, 1]) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        (partial(fbeta_score, beta=2), "fbeta_score"),
        (zoopt.metric("neg_log_loss"), "neg_log_loss"),
        (make_scorer(fbeta_score, beta=0.5), "fbeta_score"),
        (share_of_zeros, "share_of_zeros"),
    ],
)
def test_tuning_takes_what_a_user_has(objective, name, tmp_path):
    torch.manual_seed(0)
    options = {"steps": 20, "batch_size": 8, "eps": 0.1, "lr": 0.2, "quiet": True}
    result = zoopt.tune(
        torch.nn.Linear(1, 2), task=task(), objective=objective, run_dir=tmp_path, **options
    )
    assert result.report.rows[0].metric == name
    assert result.report.rows[0].gain.value >= 0
    assert f"objective: {name}" in (tmp_path / "config.yaml").read_text()


def test_a_function_that_follows_no_convention_is_told_how_to_say_which(tmp_path):
    with pytest.raises(TypeError, match=r'(?s)zoopt\.metric\(fn, convention="\.\.\."\).*sklearn'):
        zoopt.tune(torch.nn.Linear(1, 2), task=task(), objective=lambda a, b: 0, run_dir=tmp_path)
    assert not any(tmp_path.iterdir())
