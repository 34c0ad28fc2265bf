"""Tune a model on a metric of your own: a plain function of predictions and references.

Digits are read from thumbnails of 4 × 4 pixels, and one that is read too low costs ten times as
much as one that is read too high. A linear classifier, fitted to likelihood as usual, is tuned to
that cost. Run it with `python examples/custom_metric.py`; it takes half a minute.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import zoopt


@zoopt.register_objective("cost", higher_is_better=False, bounds=(0, 10), piecewise_constant=True)
def cost(predictions, references):
    """Mean cost of a reading: 10 where it is too low, 1 where it is too high."""
    error = np.asarray(predictions) - np.asarray(references)
    return float(np.mean(np.where(error < 0, 10, error > 0)))


def thumbnails():
    digits = load_digits()
    small = digits.images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16) / 16
    return [{"x": x, "label": int(y)} for x, y in zip(small, digits.target, strict=True)]


def fitted(rows):
    pixels, labels = [row["x"] for row in rows], [row["label"] for row in rows]
    fit = LogisticRegression(C=100, max_iter=5000).fit(pixels, labels)
    model = torch.nn.Linear(16, 10)
    model.load_state_dict({"weight": torch.tensor(fit.coef_), "bias": torch.tensor(fit.intercept_)})
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--run-dir", default="runs/custom_metric")
    chosen = parser.parse_args()
    rows = thumbnails()
    task = zoopt.HeadClassification(
        train=rows[:700],
        dev=rows[700:1000],
        test=rows[1000:],
        labels=range(10),
        collate=lambda rows: torch.tensor(np.array([row["x"] for row in rows])).float(),
        batch_size=1000,
    )
    zoopt.tune(
        fitted(task.train),
        task=task,
        objective="cost",
        **{"estimator": "nspsa", "n": 4, "eps": 0.5, "lr": 0.2, "batch_size": 400},
        **{"steps": chosen.steps, "run_dir": chosen.run_dir},
    )
