import signal

import pytest
import torch

import zoopt
from zoopt.tuning.report import evaluation


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals are not what most of these tests are about."""
    monkeypatch.setattr(evaluation, "_RESAMPLES", 20)


@pytest.fixture(autouse=True)
def interruptible():
    """Jobs that a shell starts in the background inherit that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def blobs():
    """A model and a task of two classes, made afresh and always the same."""

    def make(n=120):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(n, 6, generator=generator)
        labels = ["yes" if row[0] + row[1] > 0 else "no" for row in x]
        rows = [{"x": r.tolist(), "label": v} for r, v in zip(x, labels, strict=True)]
        task = zoopt.HeadClassification(
            rows[: n // 2],
            rows[n // 2 : 3 * n // 4],
            rows[3 * n // 4 :],
            labels=["no", "yes"],
            collate=lambda batch: torch.tensor([row["x"] for row in batch]),
        )
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
        )
        return model, task

    return make


@pytest.fixture
def settings():
    return {
        "objective": "cross_entropy",
        "lr": 0.05,
        "eps": 0.01,
        "steps": 30,
        "batch_size": 8,
        "eval_every": 10,
        "quiet": True,
    }
