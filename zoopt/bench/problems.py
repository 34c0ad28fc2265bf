"""Problems with a known optimum, and small models on scikit-learn's digits.

:data:`GROUPS` lists them by their names in ``zoopt bench``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoopt.bench.trial import Case, Problem

HELD_OUT = 600
"""Number of held-out digits."""

BATCH = 128
"""Digits in a minibatch."""

NOISE = 0.01
"""Standard deviation of a function's noise, in units of its value at the start."""


def quadratic(d: int, rank: int, noise: float = 0.0) -> Problem:
    """½ ‖Q x‖², where Q has ``rank`` random orthonormal rows, so that tr H / ‖H‖ is the rank.

    Args:
        d: number of variables; the start is a standard normal vector.
        rank: rank of the Hessian, equal to its effective rank.
        noise: standard deviation, in units of the start's expected value, rank / 2.
    """
    drawn = torch.Generator().manual_seed(rank)
    rows = torch.linalg.qr(torch.randn(d, rank, generator=drawn))[0].T.contiguous()

    def value(x: Tensor) -> Tensor:
        along: Tensor = rows @ x
        return 0.5 * along.double().square().sum()

    name = f"quadratic, rank {rank}, d = {d:,}" + (", noise" if noise else "")
    return _function(name, value, d, noise * rank / 2, torch.float32)


def rosenbrock(d: int, noise: float = 0.0) -> Problem:
    """The mean of 100 (x_{i+1} − x_i²)² + (1 − x_i)², whose optimum is at 1.

    Args:
        d: number of variables; the start is a standard normal vector.
        noise: standard deviation, in units of the start's expected value, 402.
    """

    def value(x: Tensor) -> Tensor:
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).mean()

    name = f"Rosenbrock, d = {d:,}" + (", noise" if noise else "")
    return _function(name, value, d, noise * 402, torch.float64)


def _function(
    name: str, value: Callable[[Tensor], Tensor], d: int, noise: float, dtype: torch.dtype
) -> Problem:
    def make(seed: int) -> Case:
        drawn = torch.Generator().manual_seed(seed)
        x = nn.Parameter(torch.randn(d, generator=drawn, dtype=torch.float64).to(dtype))

        def noisy() -> Tensor:
            return value(x) + noise * torch.randn((), generator=drawn, dtype=torch.float64)

        return Case([x], noisy if noise else lambda: value(x), lambda: value(x).item())

    return Problem(name, make, d, differentiable=True)


def digits(
    widths: Sequence[int] = (), accuracy: bool = False, batch: int | None = BATCH
) -> Problem:
    """scikit-learn's digits: minibatches as objective, 600 held-out digits as score.

    Minibatches are drawn from torch's global generator: evaluations in the same random state (the
    probes of a step, a population) see the same one.

    Args:
        widths: widths of the hidden layers, with ReLU; none for logistic regression.
        accuracy: use accuracy (higher is better) instead of cross-entropy.
        batch: digits in a minibatch; None for all 1,197 at each evaluation, without noise.
    """
    sizes = [64, *widths, 10]
    model = f"MLP {'-'.join(map(str, sizes))}" if widths else "logistic regression"
    d = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    number = "accuracy" if accuracy else "cross-entropy"

    def made() -> nn.Module:
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        between = [part for layer in layers for part in (layer, nn.ReLU())]
        return nn.Sequential(*between[:-1])

    def make(seed: int) -> Case:
        pixels, labels, order = _digits()
        test, train = order[:HELD_OUT], order[HELD_OUT:]
        torch.manual_seed(seed)
        net = made()

        def value(rows: Tensor) -> Tensor:
            logits: Tensor = net(pixels[rows])
            if accuracy:
                return (logits.argmax(1) == labels[rows]).double().mean()
            loss: Tensor = cross_entropy(logits, labels[rows])
            return loss

        def objective() -> Tensor:
            return value(train[torch.randint(len(train), (batch,))] if batch else train)

        return Case(net, objective, lambda: value(test).item(), higher_is_better=accuracy)

    name = f"digits, {model}, {number}, d = {d:,}" + (", minibatches" if batch else "")
    return Problem(name, make, d, differentiable=not accuracy)


@functools.cache
def _digits() -> tuple[Tensor, Tensor, Tensor]:
    data = load_digits()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data.target)))
    return torch.tensor(data.images).float().flatten(1) / 16, torch.tensor(data.target), order


GROUPS: Mapping[str, Callable[[], list[Problem]]] = {
    "quadratics": lambda: [
        quadratic(1_000, 10),
        quadratic(1_000, 10, NOISE),
        quadratic(10_000, 100),
        quadratic(100_000, 10),
    ],
    "rosenbrock": lambda: [rosenbrock(1_000), rosenbrock(1_000, NOISE)],
    "digits": lambda: [
        digits(batch=None),
        digits(accuracy=True, batch=None),
        digits((128,)),
        digits((128,), accuracy=True),
    ],
}
"""Groups of problems by name, constructed on demand."""
