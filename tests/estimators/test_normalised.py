"""Estimators that give a direction and no slope, against closed forms on a linear function."""

import math

import pytest
import torch

import zoopt
from zoopt.estimators import ZOEstimator
from zoopt.interfaces import Probe
from zoopt.seeds import direction_seeds
from zoopt.testing.estimators import Quadratic

STEPS = 600


def linear() -> Quadratic:
    problem = Quadratic(zoopt.Gaussian())
    problem.a.zero_()
    return problem


@pytest.mark.parametrize(
    ("estimator", "length"),
    [
        (zoopt.Dueling(n=1), math.sqrt(2 / math.pi)),
        (zoopt.Dueling(n=3), math.sqrt(2 / math.pi)),
        (zoopt.Ranking(n=2), 2 / math.sqrt(math.pi)),
        (zoopt.Ranking(n=5), 2 / math.sqrt(math.pi)),
    ],
)
def test_the_mean_is_the_unit_gradient_times_a_known_length(
    estimator: ZOEstimator, length: float
) -> None:
    problem = linear()
    made = torch.stack(
        [
            problem.vector(
                estimator.estimate(
                    problem.evaluate, direction_seeds(3, step, estimator.n), 1e-3
                ).terms
            )
            for step in range(STEPS)
        ]
    )
    unit = problem.gradient / problem.gradient.norm()
    error = made.std(0) / STEPS**0.5
    assert ((made.mean(0) - length * unit).abs() < 5 * error).all()


def test_ranking_is_the_papers_sum_over_ordered_pairs() -> None:
    problem, eps = Quadratic(zoopt.Gaussian()), 0.1
    seeds = direction_seeds(0, 0, 5)
    losses = problem.evaluate([Probe(((seed, eps),)) for seed in seeds])
    z = [problem.z(seed) for seed in seeds]
    pairs = [(i, j) for i in range(5) for j in range(5) if losses[i] < losses[j]]
    expected = torch.stack([z[j] - z[i] for i, j in pairs]).mean(0)
    estimate = zoopt.Ranking(n=5).estimate(problem.evaluate, seeds, eps)
    torch.testing.assert_close(problem.vector(estimate.terms), expected)


def test_one_sided_is_fzoos_update() -> None:
    problem, eps, n = Quadratic(zoopt.Rademacher()), 0.1, 6
    seeds = direction_seeds(0, 0, n)
    base = problem.evaluate([Probe(())])[0]
    losses = torch.tensor(problem.evaluate([Probe(((s, eps),)) for s in seeds]))
    differences = (losses - base).double()
    z = torch.stack([problem.z(seed) for seed in seeds])
    expected = (differences[:, None] * z).sum(0) / (n * losses.double().std())
    estimate = zoopt.OneSided(n=n).estimate(problem.evaluate, seeds, eps)
    torch.testing.assert_close(problem.vector(estimate.terms), expected, rtol=1e-5, atol=1e-6)


def test_a_one_sided_step_has_a_bound_where_the_slope_outweighs_the_curvature() -> None:
    lengths = {}
    for eps in (1e-3, 1e-8):
        x = torch.nn.Parameter(torch.full((1000,), 1e-5, dtype=torch.float64))
        before = x.detach().clone()
        estimator = zoopt.OneSided(eps=eps)
        zoopt.ZOOptimizer([x], lr=1.0, estimator=estimator, seed=0).step(lambda: (x**2).sum())  # noqa: B023
        lengths[eps] = float((x.detach() - before).norm()) / math.sqrt(1000 / estimator.n)
    assert lengths[1e-8] < 3
    assert lengths[1e-3] > 100


@pytest.mark.parametrize("name", ["onesided", "dueling", "ranking"])
def test_nothing_moves_where_all_probes_are_alike(name: str) -> None:
    x = torch.nn.Parameter(torch.ones(4))
    zoopt.ZOOptimizer([x], lr=1.0, estimator=name, engine="copy").step(lambda: 2.0)
    assert torch.equal(x.detach(), torch.ones(4))


@pytest.mark.parametrize("made", [zoopt.OneSided, zoopt.Ranking])
def test_one_probe_is_refused(made: type[ZOEstimator]) -> None:
    with pytest.raises(ValueError, match="at least two"):
        made(n=1)
