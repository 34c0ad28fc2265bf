"""The problems: functions with a known optimum, and small models on scikit-learn's digits."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from zoopt.bench import Case, Problem

HELD_OUT = 600
BATCH = 128


def ellipsoid(x):
    """Σ 10^{3(i−1)/(d−1)} x_i²: condition number 1,000."""
    return (torch.logspace(0, 3, len(x), dtype=x.dtype) * x**2).sum()


def rosenbrock(x):
    """Σ 100 (x_{i+1} − x_i²)² + (1 − x_i)², whose optimum is at 1."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def function(name, f, d, noise=0.0):
    """A function of d variables from a start at distance about √d, perhaps with Gaussian noise."""

    def make(seed):
        drawn = torch.Generator().manual_seed(seed)
        x = torch.nn.Parameter(torch.randn(d, generator=drawn, dtype=torch.float64))

        def noisy():
            return f(x) + noise * torch.randn((), generator=drawn, dtype=torch.float64)

        return Case([x], noisy if noise else lambda: f(x), lambda: f(x))

    return Problem(name, make)


def digits(name, model, accuracy=False):
    """A model on digits: minibatches of 128 as objective, the held-out error or loss as score."""
    data = load_digits()
    pixels, labels = torch.tensor(data.images).float().flatten(1) / 16, torch.tensor(data.target)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    test, train = order[:HELD_OUT], order[HELD_OUT:]

    def value(net, rows):
        logits = net(pixels[rows])
        if accuracy:
            return (logits.argmax(1) != labels[rows]).float().mean()
        return cross_entropy(logits, labels[rows])

    def make(seed):
        torch.manual_seed(seed)
        net = model()
        drawn = torch.Generator().manual_seed(seed)
        batch = lambda: train[torch.randint(len(train), (BATCH,), generator=drawn)]  # noqa: E731
        return Case(net, lambda: value(net, batch()), lambda: value(net, test))

    return Problem(name, make)


def linear():
    return torch.nn.Linear(64, 10)


PROBLEMS = [
    function("ellipsoid, d = 20", ellipsoid, 20),
    function("ellipsoid, d = 20, noise 1", ellipsoid, 20, noise=1.0),
    digits("digits, linear, cross-entropy, d = 650", linear),
    digits("digits, linear, error rate, d = 650", linear, accuracy=True),
]
