"""What all tests share: one thread, a fixed random state, and the names that the registry knows."""

from collections.abc import Iterator

import pytest
import torch

from zoopt import registry
from zoopt.directions.kernel import compilation
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


@pytest.fixture(autouse=True)
def no_kernel_is_compiled_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests count eager time from zero, or some test would compile what others ran."""
    monkeypatch.setattr(compilation._state, "eager", {})


@pytest.fixture(autouse=True)
def fixed_randomness() -> None:
    torch.manual_seed(0)
