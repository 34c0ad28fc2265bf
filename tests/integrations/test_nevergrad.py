"""zoopt inside nevergrad: its optimizers as any user or experiment of nevergrad's runs them."""

from pathlib import Path
from typing import Any

import nevergrad as ng
import numpy as np
import pytest
from nevergrad.common import errors
from numpy.typing import NDArray

import zoopt
from zoopt.integrations.nevergrad import SeedSpaceOptimizer, Zoopt

NAMES = ["ZooptSPSA", "ZooptNSPSA"]
TARGET = np.linspace(-1, 1, 20)


def sphere(x: NDArray[np.float64]) -> float:
    return float(((x - TARGET[: x.size].reshape(x.shape)) ** 2).sum())


def made(name: str, shape: int = 20, **options: object) -> SeedSpaceOptimizer:
    optimizer = ng.optimizers.registry[name](ng.p.Array(shape=(shape,)), **options)
    optimizer.parametrization.random_state.seed(1)
    return optimizer


@pytest.mark.parametrize("name", NAMES)
def test_a_sphere_that_nevergrads_own_spsa_hardly_moves_on(name: str) -> None:
    theirs = made("SPSA", budget=1000).minimize(sphere)
    ours = made(name, budget=1000).minimize(sphere)
    assert sphere(theirs.value) > 0.9 * sphere(np.zeros(20))
    assert sphere(ours.value) < 1e-2


def test_the_first_step_is_spsas() -> None:
    optimizer = made("ZooptSPSA")
    plus, minus = optimizer.ask(), optimizer.ask()
    z = (plus.value - minus.value) / 2 / 0.1
    np.testing.assert_allclose(np.abs(z), 1)
    np.testing.assert_allclose(plus.value, 0.1 * z)
    optimizer.tell(plus, 7.0)
    optimizer.tell(minus, 5.0)
    np.testing.assert_allclose(optimizer.recommend().value, -0.3 * z)


def test_losses_may_come_in_any_order() -> None:
    found = []
    for order in (1, -1):
        optimizer = made("ZooptNSPSA", 5, num_workers=8)
        for _ in range(20):
            candidates = [optimizer.ask() for _ in range(8)]
            for candidate in candidates[::order]:
                optimizer.tell(candidate, sphere(candidate.value))
        found.append(optimizer.recommend().value)
    np.testing.assert_array_equal(*found)


def test_a_lost_probe_is_asked_again_and_a_late_loss_is_let_go() -> None:
    optimizer = made("ZooptSPSA", 3)
    lost, other = optimizer.ask(), optimizer.ask()
    optimizer.tell(other, 1.0)
    again = optimizer.ask()
    np.testing.assert_array_equal(again.value, lost.value)
    optimizer.tell(again, 2.0)
    moved = optimizer.recommend().value
    optimizer.tell(lost, 99.0)
    np.testing.assert_array_equal(optimizer.recommend().value, moved)
    assert np.abs(moved).max() > 0


def test_n_grows_with_the_workers_and_spsa_says_when_it_has_too_many() -> None:
    assert made("ZooptNSPSA", num_workers=3).estimator.n == 4
    optimizer = made("ZooptNSPSA", num_workers=20)
    values = {optimizer.ask().value.tobytes() for _ in range(20)}
    assert len(values) == 20
    with pytest.warns(errors.InefficientSettingsWarning, match="2 probes at a time"):
        made("ZooptSPSA", num_workers=3)


def test_workers_are_as_many_as_there_are_probes_whatever_the_estimator() -> None:
    onesided, ranking = (Zoopt(estimator=name, n=4) for name in ("onesided", "ranking"))
    onesided(4, num_workers=5)
    with pytest.warns(errors.InefficientSettingsWarning, match="5 probes at a time"):
        onesided(4, num_workers=6)
    with pytest.warns(errors.InefficientSettingsWarning, match="4 probes at a time"):
        ranking(4, num_workers=5)


def test_a_run_begins_at_the_best_point_told_before_its_first_step() -> None:
    optimizer = made("ZooptSPSA", 2)
    begun = optimizer.ask()
    for value, loss in ((1.0, 3.0), (2.0, 2.0), (3.0, 4.0)):
        stranger = optimizer.parametrization.spawn_child(new_value=np.full(2, value))
        optimizer.tell(stranger, loss)
    optimizer.tell(begun, 1.0)  # a probe of where it no longer is
    np.testing.assert_array_equal(optimizer.recommend().value, 2.0)
    for loss in (2.0, 1.0):
        optimizer.tell(optimizer.ask(), loss)
    moved = optimizer.recommend().value
    np.testing.assert_allclose(np.abs(moved - 2.0), 0.3)
    stranger = optimizer.parametrization.spawn_child(new_value=np.zeros(2))
    optimizer.tell(stranger, 0.0)
    np.testing.assert_array_equal(optimizer.recommend().value, moved)


def test_it_goes_on_from_what_another_optimizer_or_the_user_found() -> None:
    spsa = ng.optimizers.registry["ZooptSPSA"]
    chain = ng.optimizers.Chaining([ng.optimizers.OnePlusOne, spsa], [20])(4, budget=60)
    chain.parametrization.random_state.seed(1)
    assert sphere(chain.minimize(sphere).value) < 0.1
    suggested = made("ZooptSPSA", 4, budget=40)
    suggested.suggest(TARGET[:4] + 0.01)
    assert sphere(suggested.minimize(sphere).value) < 1e-3


def test_integers_move() -> None:
    array = ng.p.Array(init=np.zeros(3)).set_integer_casting()
    array.random_state.seed(1)
    optimizer = ng.optimizers.registry["ZooptSPSA"](array, budget=200)
    found = optimizer.minimize(lambda x: float(((x - 3) ** 2).sum()))
    assert np.abs(found.value - 3).max() <= 1


def test_the_best_point_is_recommended_where_theta_is_worse_than_it_began() -> None:
    def rosenbrock(x: NDArray[np.float64]) -> float:
        return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())

    optimizer = made("ZooptSPSA", budget=50)
    seen = []
    optimizer.register_callback("tell", lambda _, candidate, loss: seen.append(loss))
    assert rosenbrock(optimizer.minimize(rosenbrock).value) == min(seen)
    again = made("ZooptSPSA", budget=1000)
    assert rosenbrock(again.minimize(rosenbrock).value) < rosenbrock(np.zeros(20))


@pytest.mark.parametrize("method", ["clipping", "bouncing", "tanh", "arctan"])
def test_bounds_and_scales_are_nevergrads(method: str) -> None:
    array = ng.p.Array(init=np.full(4, 15.0)).set_mutation(sigma=3.0)
    array.set_bounds(10.0, 20.0, method=method)
    seen = []

    def function(x: NDArray[np.float64]) -> float:
        seen.append(x)
        return float(((x - 18) ** 2).sum())

    found = ng.optimizers.registry["ZooptSPSA"](array, budget=400).minimize(function)
    assert 10 <= np.min(seen) <= np.max(seen) <= 20
    np.testing.assert_allclose(found.value, 18, atol=0.1)


def test_named_arguments_and_constraints() -> None:
    instrumentation = ng.p.Instrumentation(ng.p.Array(shape=(2,)), y=ng.p.Scalar(init=1.0))

    def above_one_half(value: tuple[Any, dict[str, Any]]) -> bool:
        return bool(value[1]["y"] > 0.5)

    instrumentation.register_cheap_constraint(above_one_half)
    optimizer = ng.optimizers.registry["ZooptSPSA"](instrumentation, budget=200)
    found = optimizer.minimize(lambda x, y: float((x**2).sum() + (y - 2) ** 2))
    assert abs(found.kwargs["y"] - 2) < 0.2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("least", [-0.2, 0.0])
def test_theta_keeps_to_a_constraint_in_few_trials(name: str, least: float) -> None:
    def above(x: NDArray[np.float64]) -> bool:
        trials.append(x)
        return bool(x[0] >= least)

    trials: list[NDArray[np.float64]] = []
    array = ng.p.Array(shape=(2,))
    array.register_cheap_constraint(above)
    array.random_state.seed(0)
    optimizer = ng.optimizers.registry[name](array, budget=80)
    asked = []
    optimizer.register_callback("tell", lambda _, candidate, loss: asked.append(candidate.value))
    found = optimizer.minimize(lambda x: float(((x + 0.5) ** 2).sum()))
    assert found.value[0] >= least
    assert all(x[0] >= least for x in asked)
    assert len(trials) < 40 * 80
    if least:
        assert found.value[0] < 0.5 * least


def test_theta_leaves_the_boundary_that_it_begins_on() -> None:
    def positive(x: NDArray[np.float64]) -> bool:
        return bool(x.min() >= 0)

    array = ng.p.Array(shape=(2,))
    array.register_cheap_constraint(positive)
    array.random_state.seed(0)
    optimizer = ng.optimizers.registry["ZooptSPSA"](array, budget=200)
    found = optimizer.minimize(lambda x: float(((x - 0.5) ** 2).sum()))
    np.testing.assert_allclose(found.value, 0.5, atol=0.1)


@pytest.mark.filterwarnings("ignore:Clipping very high value")
def test_an_infinite_loss_does_not_move_it() -> None:
    optimizer = made("ZooptSPSA", 2)
    for loss in (float("inf"), 1.0):
        optimizer.tell(optimizer.ask(), loss)
    np.testing.assert_array_equal(optimizer.recommend().value, 0)
    for loss in (2.0, 1.0):
        optimizer.tell(optimizer.ask(), loss)
    assert np.abs(optimizer.recommend().value).max() > 0


@pytest.mark.parametrize("update", ["sgd", "adam"])
def test_a_dumped_run_goes_on_as_it_would_have(tmp_path: Path, update: str) -> None:
    optimizer = Zoopt(estimator="nspsa", n=2, update=update)(ng.p.Array(shape=(3,)))
    for number in range(27):  # in the middle of a step
        if number == 14:
            optimizer.dump(tmp_path / "run.pkl")
        candidate = optimizer.ask()
        optimizer.tell(candidate, sphere(candidate.value))
    again = SeedSpaceOptimizer.load(tmp_path / "run.pkl")
    for _ in range(14, 27):
        candidate = again.ask()
        again.tell(candidate, sphere(candidate.value))
    np.testing.assert_array_equal(again.recommend().value, optimizer.recommend().value)


def test_an_estimator_may_ask_in_several_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    class InTwoRounds(zoopt.SPSA):
        """SPSA whose second probe is asked for when the loss of the first is known."""

        def estimate(self, evaluate, seeds, eps):  # type: ignore[no-untyped-def]
            return super().estimate(
                lambda probes: [evaluate([probe])[0] for probe in probes], seeds, eps
            )

    values = []
    for kind in (zoopt.SPSA, InTwoRounds):
        monkeypatch.setitem(zoopt.registry.ESTIMATORS, "spsa", kind)
        optimizer = made("ZooptSPSA", 3)
        for _ in range(9):
            candidate = optimizer.ask()
            optimizer.tell(candidate, sphere(candidate.value))
        values.append(optimizer.recommend().value)
    np.testing.assert_array_equal(*values)
