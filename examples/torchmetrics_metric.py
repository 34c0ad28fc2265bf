"""Tune a model on a torchmetrics metric; which way is better it says itself.

A linear regression of how diabetes progressed is tuned to Lin's concordance correlation, which
asks that predictions spread as far as the truth does, where least squares draws them to the mean.
`pip install torchmetrics`, then `python examples/torchmetrics_metric.py`; it takes some seconds.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from torchmetrics.regression import ConcordanceCorrCoef

import zoopt


def patients():
    data = load_diabetes(scaled=False)
    x = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    order = np.random.default_rng(0).permutation(len(x))
    return [{"x": x[i], "label": data.target[i] / 100} for i in order]


def fitted(rows):
    fit = LinearRegression().fit([row["x"] for row in rows], [row["label"] for row in rows])
    model = torch.nn.Linear(10, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(fit.coef_)[None])
        model.bias.fill_(float(fit.intercept_))
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--run-dir", default="runs/torchmetrics_metric")
    chosen = parser.parse_args()
    rows = patients()
    task = zoopt.Regression(
        train=rows[:200],
        dev=rows[200:242],
        test=rows[242:],
        collate=lambda rows: torch.tensor(np.array([row["x"] for row in rows])).float(),
        batch_size=500,
    )
    zoopt.tune(
        fitted(task.train),
        task=task,
        objective=zoopt.metric(ConcordanceCorrCoef()),
        **{"estimator": "nspsa", "n": 4, "eps": 0.02, "lr": 0.02, "batch_size": 200},
        **{"steps": chosen.steps, "run_dir": chosen.run_dir},
    )
