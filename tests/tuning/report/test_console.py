"""What a terminal shows while a run goes on."""

import pytest
import torch

import zoopt

HIDDEN_CURSOR = "\x1b[?25l"
"""What rich writes before it draws a bar."""


@pytest.mark.parametrize("asks", [False, True])
def test_bars_are_drawn_unless_somebody_may_be_typing_there(asks, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = [{"x": i / 4, "label": i / 4} for i in range(4)]
    task = zoopt.Regression(
        *(rows, rows, rows), collate=lambda batch: torch.tensor([[row["x"]] for row in batch])
    )
    nearer = zoopt.comparison(lambda a, b, references: -abs(a - b).sum(), needs="values", name="me")
    options = {"lr": 1e-3, "eps": 1e-3, "steps": 2, "batch_size": 4, "run_dir": tmp_path}
    zoopt.tune(torch.nn.Linear(1, 1), task=task, objective=nearer if asks else "mse", **options)
    shown = capsys.readouterr().out
    assert (HIDDEN_CURSOR in shown) == (not asks)
    assert "stopped" in shown
    if asks:
        assert "evaluating the model as it is …" in shown
