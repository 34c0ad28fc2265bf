"""Every registered estimator with every registered direction, held to the conformance kit."""

from collections.abc import Sequence

import pytest
import torch

import zoopt
from zoopt import registry, testing
from zoopt.estimators import ZOEstimator
from zoopt.interfaces import Evaluate, GradientEstimate
from zoopt.seeds import direction_seeds

NORMALISED = ("onesided", "dueling", "ranking")
"""Their ĝ has the gradient's direction and a length of its own; see test_normalised.py."""


class Skewed(zoopt.SPSA):
    """Forgets the factor 2 of a two-sided difference."""

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        right = super().estimate(evaluate, seeds, eps)
        doubled = tuple(2 * c for c in right.coefficients)
        return GradientEstimate(right.seeds, doubled, right.losses)


class Wandering(zoopt.SPSA):
    """Draws its own directions, so that no log can repeat it."""

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        return super().estimate(evaluate, [seed + 1 for seed in seeds], eps)


def make(name: str) -> ZOEstimator:
    return registry.make_estimator(name)


def test_estimates_are_unbiased_exact_along_z_and_of_closed_form_variance(
    estimator_name: str, direction_name: str
) -> None:
    exact = estimator_name not in NORMALISED
    testing.check_estimator(
        lambda: make(estimator_name),
        registry.make_direction(direction_name),
        samples=1000 if exact else 10,
        unbiased=exact,
        two_sided=exact,
    )


@pytest.mark.parametrize("n", [2, 8])
def test_variance_of_n_spsa_falls_as_one_over_n(n: int, direction_name: str) -> None:
    testing.check_estimator(
        lambda: zoopt.NSPSA(n=n), registry.make_direction(direction_name), samples=400
    )


@pytest.mark.parametrize("estimator", [Skewed, Wandering])
def test_the_kit_finds_what_is_wrong(estimator: type[ZOEstimator]) -> None:
    with pytest.raises(AssertionError, match=r"coefficient along seed|those that were given"):
        testing.check_estimator(estimator, zoopt.Rademacher(), samples=100)


def test_the_kit_finds_a_wrong_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(testing.VARIANCES, "gaussian", testing.VARIANCES["rademacher"])
    with pytest.raises(AssertionError, match="variance"):
        testing.check_estimator(zoopt.SPSA, zoopt.Gaussian(), samples=4000)


def test_runs_of_different_seeds_share_no_direction() -> None:
    runs = (0, 1, 2, -1, 1 << 20, 1_000_000, (1 << 63) - 1)
    seeds = [s for run in runs for step in range(500) for s in direction_seeds(run, step, 4)]
    assert len(set(seeds)) == len(seeds)


def test_directions_follow_from_the_run_seed_and_the_step_alone(engine_name: str) -> None:
    def seeds_of_a_run() -> list[tuple[int, ...]]:
        torch.rand(3)
        x = torch.nn.Parameter(torch.ones(5))
        optimizer = zoopt.ZOOptimizer([x], estimator="nspsa", engine=engine_name, seed=11)
        records: list[zoopt.StepRecord] = []
        optimizer.recorder = records.append
        for _ in range(3):
            optimizer.step(lambda: (x**2).sum())
        return [record.seeds for record in records]

    assert seeds_of_a_run() == seeds_of_a_run() == [direction_seeds(11, t, 4) for t in range(3)]


def test_engines_agree_to_rounding_in_fp32(estimator_name: str, direction_name: str) -> None:
    ends = []
    for engine in ("copy", "inplace", "overlay"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2)
        )
        inputs = torch.randn(16, 4)
        optimizer = zoopt.ZOOptimizer(
            model, 0.05, estimator_name, direction_name, engine, eps=1e-2, seed=3
        )
        for _ in range(5):
            optimizer.step(lambda model=model, inputs=inputs: (model(inputs) ** 2).mean())
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-4, atol=1e-5)


def test_mezo_in_place_is_its_reference_twin_to_rounding() -> None:
    """The paper's Algorithm 1, written out with materialized z, against MeZO."""
    x = torch.nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64))
    plain = x.detach().clone()
    lr, eps = 0.01, 1e-3
    optimizer = zoopt.ZOOptimizer([x], lr, zoopt.MeZO(eps=eps), seed=5)
    loss = lambda v: (v**4).sum() + v.prod()  # noqa: E731
    for step in range(20):
        (seed,) = direction_seeds(5, step, 1)
        z = testing.noise(zoopt.Gaussian(), (12,), seed, dtype=torch.float64)
        projected = (loss(plain + eps * z) - loss(plain - eps * z)) / (2 * eps)
        plain -= lr * projected * z
        optimizer.step(lambda: loss(x))
    torch.testing.assert_close(x.detach(), plain, rtol=1e-9, atol=1e-9)


def test_a_groups_own_eps_scales_its_probe_and_leaves_the_estimate_unbiased(
    direction_name: str,
) -> None:
    """For a linear f, c/scale · z has mean ∇f in each group, whatever the groups' eps are."""
    slopes = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([3.0, -0.25])
    sums = torch.zeros(5, dtype=torch.float64)
    squares = torch.zeros(5, dtype=torch.float64)
    steps = 600
    x = [torch.nn.Parameter(torch.zeros(len(s), dtype=torch.float64)) for s in slopes]
    groups = [{"params": [x[0]], "eps": 1e-3}, {"params": [x[1]], "eps": 1e-2}]
    optimizer = zoopt.ZOOptimizer(
        groups, lr=1.0, estimator="spsa", direction=direction_name, engine="copy"
    )
    at = torch.zeros(5, dtype=torch.float64)
    for _ in range(steps):
        optimizer.step(lambda: sum((p * s).sum() for p, s in zip(x, slopes, strict=True)))
        now = torch.cat([p.detach() for p in x])
        sums, squares, at = sums + (at - now), squares + (at - now) ** 2, now
    mean = sums / steps
    error = (squares / steps - mean**2).sqrt() / steps**0.5
    assert ((mean - torch.cat(slopes)).abs() < testing.SIGMAS * error).all()


def test_probes_of_a_group_move_by_its_own_eps() -> None:
    x, y = (torch.nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [x], "eps": 1e-3}, {"params": [y], "eps": 1e-1}]
    optimizer = zoopt.ZOOptimizer(groups, lr=0.0, estimator="spsa", direction="rademacher")
    seen: list[tuple[float, float]] = []

    def closure() -> float:
        seen.append((x.abs().max().item(), y.abs().max().item()))
        return 0.0

    optimizer.step(closure)
    assert seen == [pytest.approx((1e-3, 1e-1))] * 2
