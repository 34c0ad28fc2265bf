"""What a low-rank direction holds while an engine makes a matrix at a time."""

import pytest
import torch

from zoopt.directions import LowRank, lowrank
from zoopt.interfaces import Change, Place


@pytest.mark.parametrize("backwards", [False, True])
def test_one_by_one_is_the_whole_and_holds_few_factors(
    backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    direction, terms = LowRank(rank=3), ((7, 0.5), (8, -0.25))
    thetas = [torch.linspace(-1, 1, 60).view(10, 6) + k for k in range(5)]
    expected = [theta.clone() for theta in thetas]
    direction.add_(Change([Place(t, k) for k, t in enumerate(expected)], terms))

    made: list[int] = []
    factors = LowRank._factors

    def counted(self, part, seeds):
        made.append(len(part))
        return factors(self, part, seeds)

    monkeypatch.setattr(lowrank, "_TOGETHER", 2 * (10 + 6) * 3 * len(terms))
    monkeypatch.setattr(LowRank, "_factors", counted)
    one = direction.one_by_one(Change([Place(t, k) for k, t in enumerate(thetas)], terms))
    assert made == []
    for k in sorted(range(5), reverse=backwards):
        into = torch.empty(10, 6)
        one(Place(thetas[k], k, into))
        assert torch.equal(into, expected[k])
    assert sorted(made) == [1, 2, 2]
