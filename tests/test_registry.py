"""Names of directions, engines, estimators and update rules, and of nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import zoopt
from zoopt import registry


@pytest.mark.parametrize(
    ("look_up", "given", "suggestion"),
    [
        (registry.make_direction, "gausian", "'gaussian'"),
        (registry.make_estimator, "meso", "'mezo'"),
        (registry.make_update, "adm", "'adam'"),
        (registry.engine_class, "in_place", "'inplace'"),
    ],
)
def test_a_wrong_name_gets_the_nearest_one(
    look_up: Callable[[str], Any], given: str, suggestion: str
) -> None:
    with pytest.raises(
        KeyError, match=rf"called '{given}'\. Did you mean {suggestion}\? Available"
    ):
        look_up(given)


def test_a_name_like_none_gets_the_list() -> None:
    with pytest.raises(KeyError) as caught:
        registry.make_update("qqqqq")
    assert "Did you mean" not in str(caught.value)
    assert "Available: adam, momentum, projected, sgd." in str(caught.value)


def test_the_optimizer_passes_the_sentence_on() -> None:
    with pytest.raises(KeyError, match="Did you mean 'overlay'"):
        zoopt.ZOOptimizer([torch.nn.Parameter(torch.ones(1))], engine="overlai")


def test_objects_are_handed_through() -> None:
    direction, estimator, update = zoopt.Sphere(), zoopt.SPSA(), zoopt.Adam()
    assert registry.make_direction(direction) is direction
    assert registry.make_estimator(estimator) is estimator
    assert registry.make_update(update) is update


def test_a_direction_without_a_method_is_told_which() -> None:
    class Half:
        name = "half"

        def bind(self, slots: Any) -> None:
            raise AssertionError("not asked for")

    with pytest.raises(TypeError, match="direction 'half' has no add_ and no rows"):
        zoopt.ZOOptimizer([torch.nn.Parameter(torch.ones(1))], direction=Half())


def test_options_reach_what_is_made() -> None:
    assert registry.make_estimator("nspsa", n=7, eps=0.5).n == 7
    assert registry.make_update("momentum", beta=0.5).beta == 0.5


def test_every_name_makes_its_kind(
    direction_name: str, estimator_name: str, update_name: str, engine_name: str
) -> None:
    assert registry.make_direction(direction_name).name == direction_name
    assert isinstance(registry.make_estimator(estimator_name), zoopt.ZOEstimator)
    assert registry.make_update(update_name).name == update_name
    assert registry.engine_class(engine_name).name == engine_name


# --------------------------------------------------------------------------------------- objectives
