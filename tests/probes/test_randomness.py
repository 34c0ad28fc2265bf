"""The random state: of every global generator, seeded and put back."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from zoopt.probes import randomness
from zoopt.probes.randomness import same_randomness, seeded

DEVICE = torch.device("mps")


def drawn() -> tuple[float, ...]:
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002


class Device:
    """A device's module, whose random state is a tensor."""

    def __init__(self) -> None:
        self.state = torch.zeros(1)

    def get_rng_state(self, device: torch.device) -> Tensor:
        assert device == DEVICE
        return self.state.clone()

    def set_rng_state(self, state: Tensor, device: torch.device) -> None:
        assert device == DEVICE
        self.state = state.clone()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    module, generator = Device(), torch.Generator

    def own(of: torch.device) -> object:
        return torch.random if of.type == "cpu" else module

    monkeypatch.setattr(randomness, "_module", own)
    monkeypatch.setattr(randomness, "_in_use", lambda: [DEVICE])
    monkeypatch.setattr(torch, "Generator", lambda _: generator())
    return module


def test_a_block_draws_what_its_seed_says_and_leaves_the_state() -> None:
    before = drawn()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    first = drawn()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    inside = []
    for seed in (7, -7, 1 << 70):
        for _ in range(2):
            with seeded(seed):
                inside.append(drawn())
    assert drawn() == first != before
    assert inside[::2] == inside[1::2]
    assert len(set(inside)) == 3


def test_torch_draws_as_after_manual_seed() -> None:
    with seeded(5):
        inside = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(inside, torch.rand(3))


def test_probes_draw_alike_and_what_one_evaluation_draws_is_drawn() -> None:
    torch.manual_seed(3)
    rewind = same_randomness([])
    torch.rand(1)  # before the first probe
    probes = []
    for _ in range(3):
        rewind()
        probes.append(drawn())
    after = drawn()
    assert probes[0] == probes[1] == probes[2] != after


def test_other_devices_are_seeded_and_rewound(device: Device) -> None:
    with seeded(3):
        assert not torch.equal(device.state, torch.zeros(1))
        device.state = torch.ones(1)
    assert torch.equal(device.state, torch.zeros(1))
    rewind = same_randomness([DEVICE])
    for _ in range(2):
        rewind()
        assert torch.equal(device.state, torch.zeros(1))
        device.state = torch.ones(1)
