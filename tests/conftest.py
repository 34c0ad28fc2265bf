"""What all tests share: one thread, a fixed random state, and the names that the registry knows."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from zoopt import registry
from zoopt.directions.kernel import check, cpp_launch, generator, plan, triton_launch
from zoopt.engines.base import OneByOne

ENGINES_FOR_ANY_DIRECTION = [n for n, e in registry.ENGINES.items() if issubclass(e, OneByOne)]
"""The batched engine takes low-rank directions and closures with a population only."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """An argument called ``direction_name``, ``engine_name`` and so on runs over the registry."""
    tables = {
        "direction_name": registry.DIRECTIONS,
        "engine_name": ENGINES_FOR_ANY_DIRECTION,
        "estimator_name": registry.ESTIMATORS,
        "update_name": registry.UPDATES,
    }
    for argument, table in tables.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, sorted(table))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The number of elements that share a key, small enough for tests, not for the check's sample.

    Plans depend on it.
    """
    monkeypatch.setattr(generator, "SEGMENT", 1024)
    monkeypatch.setattr(check, "_compare", lambda *_: None)
    for kernel in (cpp_launch, triton_launch):
        monkeypatch.setattr(kernel, "_checked", replace(kernel._checked, passed=set()))
    plan._plan.cache_clear()
    yield 1024
    plan._plan.cache_clear()


@pytest.fixture(params=["raises", "differs"])
def faulty_launch(request: pytest.FixtureRequest) -> tuple[check.Launch, str]:
    """A kernel's launch that fails or does nothing, and the end of the warning about it."""
    raises = request.param == "raises"

    def launch(*_: object) -> None:
        if raises:
            raise ValueError("no such instruction")

    return launch, "no such instruction" if raises else "differ from those of eager execution"


@pytest.fixture(autouse=True)
def fixed_randomness() -> None:
    torch.manual_seed(0)
