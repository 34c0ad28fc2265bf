"""Conformance check for estimators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zoopt.estimators import ZOEstimator
from zoopt.interfaces import (
    Direction,
    GradientEstimate,
    Probe,
    Terms,
)
from zoopt.seeds import direction_seeds
from zoopt.testing.common import (
    VARIANCES,
    make_slots,
    materialize,
    require,
    require_mean,
)


class Quadratic:
    """f(x) = ½ xᵀAx + bᵀx over a small θ, with closed-form gradient and estimates.

    Args:
        direction: the distribution of probes' directions; it is bound to this θ.
    """

    def __init__(self, direction: Direction) -> None:
        self.slots = make_slots([(2, 3), (4,)], torch.float64)
        self.direction = direction
        direction.bind(self.slots)
        self.d = sum(slot.tensor.numel() for slot in self.slots)
        generator = torch.Generator().manual_seed(1)
        root = torch.randn(self.d, self.d, dtype=torch.float64, generator=generator)
        self.a = root @ root.T / self.d
        self.b = torch.randn(self.d, dtype=torch.float64, generator=generator)
        self.x = torch.ones(self.d, dtype=torch.float64)
        self.probes: list[Probe] = []
        self._known: dict[int, Tensor] = {}

    @property
    def gradient(self) -> Tensor:
        """∇f at x, shape (d,)."""
        return self.a @ self.x + self.b

    def z(self, seed: int) -> Tensor:
        """The direction of a seed, shape (d,)."""
        if seed not in self._known:
            self._known[seed] = materialize(self.direction, self.slots, ((seed, 1.0),))
        return self._known[seed]

    def vector(self, terms: Terms) -> Tensor:
        """Σ c z(s), shape (d,)."""
        total = torch.zeros(self.d, dtype=torch.float64)
        for seed, c in terms:
            total += c * self.z(seed)
        return total

    def evaluate(self, probes: Sequence[Probe]) -> list[float]:
        """Returns f(x + Σ a z(s)) for each probe, as an estimator's ``evaluate``."""
        self.probes += probes
        points = [self.x + self.vector(probe.terms) for probe in probes]
        return [float(0.5 * x @ self.a @ x + self.b @ x) for x in points]


def check_estimator(
    make_estimator: Callable[[], ZOEstimator],
    direction: Direction,
    *,
    samples: int = 1000,
    unbiased: bool = True,
    two_sided: bool = True,
) -> None:
    """Checks an estimator against its contract, and against closed forms on a quadratic.

    Args:
        make_estimator: constructs the same estimator at each call.
        direction: the distribution of z. Variances are checked for those in ``VARIANCES``.
        samples: number of estimates for mean and variance.
        unbiased: whether to require E[ĝ] = ∇f on a quadratic.
        two_sided: whether to require that the coefficients are central differences, which are
            exact directional derivatives on a quadratic and imply the variance.

    Raises:
        AssertionError: names the first property that does not hold.
    """
    _check_estimate(make_estimator, Quadratic(direction))
    problem = Quadratic(direction)
    estimates = _estimates(make_estimator(), problem, samples)
    if two_sided:
        _check_exact_along_z(make_estimator(), problem, estimates)
    vectors = torch.stack([problem.vector(estimate.terms) for estimate in estimates])
    if unbiased:
        require_mean(vectors, problem.gradient, "E[ĝ]")
    family = VARIANCES.get(direction.name)
    if two_sided and family is not None:
        expected = family(problem.gradient) / make_estimator().n
        require_mean((vectors - problem.gradient) ** 2, expected, "the variance of ĝ")


def _estimates(estimator: ZOEstimator, problem: Quadratic, number: int) -> list[GradientEstimate]:
    return [
        estimator.estimate(problem.evaluate, direction_seeds(7, step, estimator.n), estimator.eps)
        for step in range(number)
    ]


def _check_estimate(make_estimator: Callable[[], ZOEstimator], problem: Quadratic) -> None:
    estimator = make_estimator()
    seeds = direction_seeds(0, 0, estimator.n)
    state = torch.get_rng_state()
    asked: list[float] = []

    def evaluate(probes: Sequence[Probe]) -> list[float]:
        losses = problem.evaluate(probes)
        asked.extend(losses)
        return losses

    estimate = estimator.estimate(evaluate, seeds, estimator.eps)
    require(torch.equal(state, torch.get_rng_state()), "torch's global generator was used")
    require(
        len(estimate.coefficients) == len(estimate.seeds),
        f"{len(estimate.coefficients)} coefficients for {len(estimate.seeds)} seeds",
    )
    require(
        estimate.seeds == tuple(seeds),
        f"the estimate has seeds {estimate.seeds}; expected those that were given, in order: a "
        "direction that it does not use has coefficient 0",
    )
    require(
        estimate.losses == tuple(asked),
        "losses must be those of the probes in order, so that a log can repeat the estimate",
    )
    again = make_estimator().estimate(problem.evaluate, seeds, estimator.eps)
    require(estimate == again, "the same seeds and losses give a different estimate")
    repeated = make_estimator().from_losses(estimate.losses, seeds, estimator.eps)
    require(estimate == repeated, "the estimate cannot be recomputed from its losses")
    used = {seed for probe in problem.probes for seed, _ in probe.terms}
    require(used <= set(seeds), "a probe uses a direction that was not given")


def _check_exact_along_z(
    estimator: ZOEstimator, problem: Quadratic, estimates: Sequence[GradientEstimate]
) -> None:
    for estimate in estimates[:100]:
        for seed, c in estimate.terms:
            expected = float(problem.gradient @ problem.z(seed)) / estimator.n
            rounding = 8 * 2.0**-53 * max(map(abs, estimate.losses)) / estimator.eps
            require(
                math.isclose(c, expected, rel_tol=1e-9, abs_tol=rounding),
                f"the coefficient along seed {seed} is {c}, expected ∇fᵀz/n = {expected}",
            )
