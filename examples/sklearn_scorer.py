"""Tune a model on a scikit-learn scorer, given by name or as make_scorer made it.

Which of 1,797 handwritten digits are 8s? One in ten is, and to miss one matters more than a false
alarm, so the score is F3. A linear classifier, fitted to likelihood as usual, is tuned to it. Run
it with `python examples/sklearn_scorer.py`, also with `--scorer balanced_accuracy`.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import fbeta_score, make_scorer

import zoopt


def thumbnails():
    digits = load_digits()
    small = digits.images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16) / 16
    return [{"x": x, "label": int(y == 8)} for x, y in zip(small, digits.target, strict=True)]


def fitted(rows):
    pixels, labels = [row["x"] for row in rows], [row["label"] for row in rows]
    fit = LogisticRegression(C=100, max_iter=5000).fit(pixels, labels)
    model = torch.nn.Linear(16, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(np.concatenate([0 * fit.coef_, fit.coef_])))
        model.bias.copy_(torch.tensor([0.0, fit.intercept_[0]]))
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scorer", default="", help="a name for sklearn.metrics.get_scorer")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--run-dir", default="runs/sklearn_scorer")
    chosen = parser.parse_args()
    rows = thumbnails()
    task = zoopt.HeadClassification(
        train=rows[:800],
        dev=rows[800:1000],
        test=rows[1000:],
        labels=[0, 1],
        collate=lambda rows: torch.tensor(np.array([row["x"] for row in rows])).float(),
        batch_size=1000,
    )
    zoopt.tune(
        fitted(task.train),
        task=task,
        objective=zoopt.metric(chosen.scorer or make_scorer(fbeta_score, beta=3)),
        **{"estimator": "nspsa", "n": 4, "eps": 0.2, "lr": 0.5, "batch_size": 400},
        **{"steps": chosen.steps, "run_dir": chosen.run_dir},
    )
