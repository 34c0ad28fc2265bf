"""Other libraries' optimizers, stepped with our closures."""

from typing import Any

import nevergrad as ng
import numpy as np
import pytest
import torch
from torch import nn

import zoopt
from zoopt import baselines
from zoopt.baselines import BlackBox
from zoopt.baselines.coordinates import Coordinates, spreads
from zoopt.baselines.searches import Nevergrad
from zoopt.interfaces import Slot


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def made(kind: str, model: nn.Module, **options: object) -> BlackBox:
    if kind == "pycma":
        return baselines.pycma(model, **options)
    return baselines.nevergrad(kind, model, budget=40, **options)


@pytest.mark.parametrize("kind", ["OnePlusOne", "NGOpt", "ZooptSPSA", "pycma"])
@pytest.mark.parametrize("dimension", [None, 3])
def test_the_closure_of_a_zooptimizer_does(kind: str, dimension: int | None) -> None:
    model = mlp()
    inputs = torch.linspace(-1, 1, 30).view(10, 3)
    optimizer = made(kind, model, dimension=dimension, sigma=0.3, seed=3)

    def loss() -> torch.Tensor:
        return ((model(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean()

    before = loss().item()
    for _ in range(40):
        optimizer.step(loss)
    optimizer.settle()
    assert loss().item() < 0.9 * before
    assert optimizer.steps == 40


@pytest.mark.parametrize("kind", ["OnePlusOne", "pycma"])
def test_before_the_first_step_it_recommends_what_was_there(kind: str) -> None:
    model = mlp()
    before = flat(model)
    made(kind, model).settle()
    torch.testing.assert_close(flat(model), before)


@pytest.mark.parametrize("kind", ["DiagonalCMA", "NGOpt", "pycma"])
def test_a_seed_repeats_a_run_and_another_does_not(kind: str) -> None:
    found = []
    for seed in (1, 1, 2):
        model = mlp()
        optimizer = made(kind, model, seed=seed, dimension=4)
        for _ in range(20):
            optimizer.step(lambda model=model: flat(model).square().sum())
        optimizer.settle()
        found.append(flat(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_maximize_turns_the_sign_and_reports_the_closures() -> None:
    x = nn.Parameter(torch.zeros(2))
    optimizer = baselines.nevergrad("OnePlusOne", [x], budget=100, sigma=1.0, maximize=True)
    values = [optimizer.step(lambda: -((x - 1) ** 2).sum()) for _ in range(100)]
    optimizer.settle()
    assert values[0] < 0
    assert ((x - 1) ** 2).sum() < 0.05


def test_a_step_of_all_weights_is_sigma_of_each_tensors_spread() -> None:
    model = mlp()
    slots = [Slot(i, name, p) for i, (name, p) in enumerate(model.named_parameters())]
    coordinates = Coordinates(slots, None, "gaussian", sigma=0.5, seed=0)
    x = np.random.default_rng(0).standard_normal(coordinates.dimension)
    before = flat(model)
    coordinates.write(x)
    scale = torch.cat(
        [
            torch.full((s.tensor.numel(),), v)
            for s, v in zip(slots, spreads(coordinates.origin), strict=True)
        ]
    )
    torch.testing.assert_close(
        flat(model), before + 0.5 * scale * torch.from_numpy(x), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("direction", ["gaussian", "rademacher", "lowrank:2"])
def test_a_subspace_is_linear_and_as_wide_as_it_says(direction: str) -> None:
    weight = nn.Parameter(torch.randn(60, 50, generator=torch.Generator().manual_seed(0)))
    slots = [Slot(0, "weight", weight)]
    coordinates = Coordinates(slots, 4, direction, sigma=0.5, seed=0)
    origin = weight.detach().clone()

    def moved(*x: float) -> torch.Tensor:
        coordinates.write(np.array(x, dtype=np.float64))
        return weight.detach() - origin

    one, two = moved(1, 0, 0, 0), moved(0, 1, 0, 0)
    torch.testing.assert_close(moved(2, -3, 0, 0), 2 * one - 3 * two, atol=1e-5, rtol=1e-4)
    spread = (moved(1, -1, 1, 1).square().mean().sqrt() / origin.std()).item()
    assert 0.35 < spread < 0.65
    torch.testing.assert_close(moved(0, 0, 0, 0), torch.zeros_like(origin))


def test_what_has_no_spread_of_its_own_takes_that_of_all() -> None:
    wide, ones = torch.tensor([-3.0, 3.0]), torch.ones(2)
    assert spreads([wide, ones]) == [3.0, pytest.approx(3 / 2**0.5)]
    assert spreads([torch.zeros(3)]) == [1.0]


def test_the_algorithm_behind_a_name_is_told() -> None:
    search = Nevergrad("NGOpt", 2000, budget=100)
    search.ask()
    assert search.algorithm.startswith("NGOpt > ")
    assert Nevergrad("OnePlusOne", 3).algorithm == "OnePlusOne"


def test_a_large_archive_is_pruned_and_a_small_one_is_nevergrads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    default = ng.optimizers.registry["OnePlusOne"](10).pruning.max_len
    assert Nevergrad("OnePlusOne", 10).optimizer.pruning.max_len == default
    monkeypatch.setattr("zoopt.baselines.searches.ARCHIVE_BYTES", 16 * 10)
    search = Nevergrad("NGOpt", 10, budget=50)
    for number in range(20):
        search.ask()
        search.tell(float(number))
    assert len(search.optimizer.archive) <= 4
    assert len(search.optimizer.optim.archive) <= 4


def test_mistakes_are_told() -> None:
    x = nn.Parameter(torch.zeros(2))
    with pytest.raises(KeyError, match="Did you mean 'OnePlusOne'"):
        baselines.nevergrad("OnePlusOn", [x])
    with pytest.raises(ValueError, match="dimension=… of at most 5000"):
        baselines.pycma([nn.Parameter(torch.zeros(6000))])
    with pytest.raises(ValueError, match="sigma=0"):
        baselines.pycma([x], sigma=0)
    with pytest.raises(zoopt.NonFiniteLossError):
        baselines.pycma([x]).step(lambda: float("nan"))


@pytest.mark.parametrize("make", [baselines.pycma, lambda x: baselines.evotorch("SNES", x)])
def test_a_closure_that_calls_backward_is_told_to_return_the_loss(make: Any) -> None:
    x = nn.Parameter(torch.ones(2))
    with pytest.raises(RuntimeError, match=r"remove \.backward\(\)"):
        make([x]).step(lambda: x.square().sum().backward())


@pytest.mark.parametrize("name", ["PGPE", "SNES", "XNES"])
def test_evotorchs_searches_find_the_bottom_and_repeat_by_seed(name: str) -> None:
    found = []
    for seed in (1, 1, 2):
        x = nn.Parameter(torch.linspace(-1, 1, 6))
        optimizer = baselines.evotorch(name, [x], sigma=0.5, seed=seed)
        optimizer.settle()
        torch.testing.assert_close(x.detach(), torch.linspace(-1, 1, 6))
        for _ in range(60):
            optimizer.step(lambda x=x: ((x - 1) ** 2).sum())
        optimizer.settle()
        found.append(x.detach().clone())
    assert ((found[0] - 1) ** 2).sum() < 0.3
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_population_sees_one_random_state_and_the_next_another() -> None:
    x = nn.Parameter(torch.zeros(4))
    optimizer = baselines.pycma([x], sigma=1.0)
    size = optimizer.search.strategy.popsize
    drawn: list[float] = []

    def loss() -> torch.Tensor:
        drawn.append(torch.rand(()).item())
        return (x**2).sum()

    for _ in range(2 * size):
        optimizer.step(loss)
    assert len(set(drawn[:size])) == len(set(drawn[size:])) == 1
    assert drawn[0] != drawn[-1]
    drawn.clear()
    baselines.evotorch("SNES", [x]).step(loss)
    assert len(drawn) > 1
    assert len(set(drawn)) == 1


def test_nevergrads_constants_can_be_set_and_misspelt_ones_are_told() -> None:
    assert Nevergrad("SPSA", 3, constants={"a": 0.5}).optimizer.a == 0.5
    with pytest.raises(ValueError, match="SPSA has no b to set to"):
        Nevergrad("SPSA", 3, constants={"b": 0.5})
    with pytest.raises(KeyError, match="Did you mean 'SNES'"):
        baselines.evotorch("SNESS", nn.Linear(2, 1))
