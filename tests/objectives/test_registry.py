"""Objectives by name: where they come from, and what is said where there is none."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_score

import zoopt
from zoopt.objectives import registry
from zoopt.objectives.metric import Parts
from zoopt.objectives.resolve import resolve


@pytest.fixture(autouse=True)
def own_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it, and no installed package takes part."""
    monkeypatch.setattr(registry, "_metrics", {})
    offer(monkeypatch)


def offer(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Lets packages offer objectives: name = "module:attribute"."""

    def entry_points(*, group: str) -> EntryPoints:
        assert group == "zoopt.objectives"
        return EntryPoints(EntryPoint(name, value, group) for name, value in points.items())

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of somebody else's with a registered objective, an unregistered one and a Metric."""
    (tmp_path / "their_rewards.py").write_text(
        "import zoopt\n"
        "@zoopt.register_objective('politeness', higher_is_better=True, needs='values')\n"
        "def politeness(predictions, references):\n"
        "    return len(predictions)\n"
        "def undecided(predictions, references):\n"
        "    return 0.0\n"
        "rudeness = zoopt.Metric('rudeness', undecided, higher_is_better=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_rewards", raising=False)
    return "their_rewards"


def ones(predictions: Any, references: Any) -> float:
    return 1.0


def others(predictions: Any, references: Any) -> float:
    return 2.0


def test_a_registered_objective_is_found_and_listed() -> None:
    assert zoopt.register_objective("ones", higher_is_better=False)(ones) is ones
    found = zoopt.get_objective("ones")
    assert (found.name, found.function, found.higher_is_better, found.needs) == (
        "ones",
        ones,
        False,
        "labels",
    )
    assert found([0], [0]) == 1.0
    assert zoopt.list_objectives() == ["ones"]


def test_a_name_is_registered_once() -> None:
    zoopt.register_objective("ones", higher_is_better=True)(ones)
    with pytest.raises(ValueError, match=r"'ones' is already .*\.ones; register .*\.others under"):
        zoopt.register_objective("ones", higher_is_better=True)(others)
    assert zoopt.get_objective("ones").function is ones


def test_the_same_function_may_register_again() -> None:
    """A module that is loaded again defines its functions anew."""
    for _ in range(2):
        zoopt.register_objective("ones", higher_is_better=True)(ones)
    assert zoopt.list_objectives() == ["ones"]


def test_the_values_of_each_example_take_the_objectives_arguments() -> None:
    def far(predictions, references, *, origin=0.0):
        return np.abs(np.subtract(predictions, origin))

    @zoopt.register_objective("distance", higher_is_better=False, needs="values", each=far)
    def distance(predictions, references, *, origin=0.0):
        return float(far(predictions, references, origin=origin).mean())

    metric = zoopt.get_objective("distance(origin=1)")
    assert metric([0.0, 3.0], [0.0, 0.0]) == 1.5
    assert metric.by_example([0.0, 3.0], [0.0, 0.0]).tolist() == [1.0, 2.0]


def test_an_unknown_need_is_refused() -> None:
    with pytest.raises(ValueError, match="needs='logits' is none of 'labels'"):
        zoopt.register_objective("ones", higher_is_better=True, needs="logits")


def test_a_wrong_objective_gets_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, f1_macro="nowhere:f1")
    with pytest.raises(
        KeyError, match=r"no objective is called 'f1_makro'\. Did you mean 'f1_macro'"
    ):
        zoopt.get_objective("f1_makro")


def test_entry_points_are_listed_without_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    zoopt.register_objective("ones", higher_is_better=True)(ones)
    offer(monkeypatch, accuracy="a_package_that_is_not_there:accuracy")
    assert zoopt.list_objectives() == ["accuracy", "ones"]
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        zoopt.get_objective("accuracy")


def test_an_entry_points_objective_is_loaded_by_name(
    plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, politeness=f"{plugin}:politeness", rudeness=f"{plugin}:rudeness")
    found = zoopt.get_objective("politeness")
    assert (found.higher_is_better, found.needs, found([1, 2], [])) == (True, "values", 2.0)
    assert not zoopt.get_objective("rudeness").higher_is_better
    assert zoopt.get_objective("politeness") is found


def test_a_dotted_path_is_loaded(plugin: str) -> None:
    assert zoopt.get_objective(f"{plugin}:politeness").name == "politeness"
    assert zoopt.get_objective(f"{plugin}:rudeness").name == "rudeness"


def test_a_function_that_does_not_say_which_way_is_better_is_refused(plugin: str) -> None:
    with pytest.raises(ValueError, match=r"their_rewards\.undecided, which does not say whether"):
        zoopt.get_objective(f"{plugin}:undecided")


def test_a_function_that_takes_references_first_is_refused() -> None:
    """It would be given predictions as references, and precision would be recall."""
    with pytest.raises(TypeError, match=r"takes \(y_true, y_pred\).*zoopt.metric"):
        zoopt.register_objective("precision", higher_is_better=True)(precision_score)


@pytest.mark.parametrize("returned", [None, "0.5", [1.0, 2.0]])
def test_a_registered_function_returns_one_number(returned: Any) -> None:
    zoopt.register_objective("mine", higher_is_better=True)(
        lambda predictions, references: returned
    )
    with pytest.raises(TypeError, match=r"'mine' returned .*; expected one number"):
        zoopt.get_objective("mine")([1], [1])


@pytest.mark.parametrize("name", ["mine(1)", "package:mine", "mine "])
def test_a_name_that_could_not_be_looked_up_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"could not be|cannot be parsed|has no name for argument"):
        zoopt.register_objective(name, higher_is_better=True)


def test_a_name_with_an_operator_in_it_is_no_expression() -> None:
    zoopt.register_objective("share-of-ones", higher_is_better=True)(ones)
    assert resolve("share-of-ones").function is ones
    assert resolve("2*share-of-ones")(Parts(([1],)), Parts(([1],))) == 2.0


def test_what_is_registered_here_comes_before_an_entry_point(
    plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, ones=f"{plugin}:rudeness")
    zoopt.register_objective("ones", higher_is_better=True)(ones)
    assert zoopt.get_objective("ones").function is ones
