"""A run whose probes say nothing says so, and what to change."""

import torch

import zoopt
from zoopt.tuning.learning import advice, silent_share


def test_silent_directions_are_those_without_a_difference():
    assert silent_share([0.0, 1e-300, -2.0, 0.0]) == 0.5


def test_advice_names_settings_that_help_and_is_silent_where_probes_speak():
    steps = [{"silent": 1.0}, {"silent": 0.5}, {"value": 1.0}]
    said = advice(steps, piecewise_constant=True, batch_size=16, eps=1e-3)
    assert said.startswith("75% of the directions taught nothing")
    for setting in ("batch_size=64", "eps=0.01", "cross_entropy"):
        assert setting in said
    assert "cross_entropy" not in advice(steps, False, 16, 1e-3)
    assert advice([{"silent": 0.4}], True, 16, 1e-3) == ""
    assert advice([], True, 16, 1e-3) == ""


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
    assert "100% of the directions taught nothing" in " ".join(capsys.readouterr().out.split())
    assert "taught nothing" in (tmp_path / "report.html").read_text()
