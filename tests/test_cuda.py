"""On a GPU everything is what it is on the CPU: z, steps of every engine, replay, and memory."""

from typing import Any

import pytest
import torch

import zoopt
from zoopt.directions import compilation, kernel
from zoopt.directions.gaussian import GAUSSIAN
from zoopt.directions.generator import Unit
from zoopt.directions.rademacher import RADEMACHER
from zoopt.engines.memory import peak_bytes
from zoopt.interfaces import Change
from zoopt.records import StepRecord

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

each_unit = pytest.mark.parametrize("unit", [GAUSSIAN, RADEMACHER], ids=lambda unit: unit.name)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
LENGTH = 100_003


def summed(unit: Unit, dtype: torch.dtype, device: str, compiled: bool = False) -> torch.Tensor:
    theta = torch.linspace(-2, 2, LENGTH).to(device, dtype)
    terms = ((1, 0.3), (2, -0.1))
    kernel.add_([Change(theta, 4, terms, 0.9)], unit, compiled=compiled)
    return theta.cpu()


@each_unit
@each_dtype
def test_a_pass_gives_what_it_gives_on_the_cpu(unit: Unit, dtype: torch.dtype) -> None:
    here, there = summed(unit, dtype, "cpu"), summed(unit, dtype, "cuda")
    steps = 4 * torch.finfo(dtype).eps  # of rounding: polynomials may be contracted otherwise
    torch.testing.assert_close(there, here, rtol=steps, atol=steps)


@each_unit
@each_dtype
def test_a_compiled_pass_is_the_eager_one(unit: Unit, dtype: torch.dtype) -> None:
    eager, compiled = (summed(unit, dtype, "cuda", mode) for mode in (False, True))
    assert not compilation._state.broken
    steps = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(compiled, eager, rtol=steps, atol=steps)


def network(device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Linear(16, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 4)
    return torch.nn.Sequential(*layers).to(device)


def tuned(device: str, engine: str, **how: Any) -> tuple[torch.nn.Module, list[StepRecord]]:
    model = network(device)
    x = torch.linspace(-1, 1, 8 * 16).view(8, 16).to(device)
    optimizer = zoopt.ZOOptimizer(model, 1e-3, engine=engine, seed=3, **how)
    records: list[StepRecord] = []
    optimizer.recorder = records.append

    def values(population: zoopt.Population) -> torch.Tensor:
        return population.per_probe(model(population.expand(x))).square().mean((1, 2))

    for _ in range(10):
        optimizer.step(values if engine == "batched" else lambda: model(x).square().mean())
    return model, records


@pytest.mark.parametrize("engine", ["inplace", "overlay", "copy", "batched"])
def test_steps_are_those_of_the_cpu(engine: str) -> None:
    direction = "lowrank" if engine == "batched" else "rademacher"
    here, _ = tuned("cpu", engine, direction=direction)
    there, _ = tuned("cuda", engine, direction=direction)
    for mine, theirs in zip(there.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-3, atol=1e-4)


def test_steps_can_be_repeated_bit_for_bit() -> None:
    once, records = tuned("cuda", "inplace")
    again = network("cuda")
    optimizer = zoopt.ZOOptimizer(again, 1e-3, engine="inplace", seed=3)
    for record in records:
        optimizer.repeat(record)
    for mine, theirs in zip(again.parameters(), once.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_step_in_place_takes_the_memory_of_inference() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048) for _ in range(8))).to("cuda")
    x = torch.ones(64, 2048, device="cuda")
    optimizer = zoopt.ZOOptimizer(model, 1e-6, direction="rademacher", engine="inplace")

    @torch.no_grad()
    def value() -> torch.Tensor:
        return model(x).mean()

    optimizer.step(value)  # compiles
    device = torch.device("cuda")
    (_, forward), (_, step) = (
        peak_bytes(call, device) for call in (value, lambda: optimizer.step(value))
    )
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert weights + step <= 1.03 * (weights + forward)
