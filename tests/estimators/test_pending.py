"""A pending estimate is the estimator's own, however its losses come in."""

import random
from collections.abc import Sequence

import pytest

import zoopt
from zoopt import registry
from zoopt.estimators.pending import PendingEstimate
from zoopt.interfaces import Evaluate, GradientEstimate, Probe


class InTwoCalls(zoopt.ZOEstimator):
    """Evaluates θ first and its probes afterwards, in a call of their own."""

    def estimate(self, evaluate: Evaluate, seeds: Sequence[int], eps: float) -> GradientEstimate:
        (base,) = evaluate([Probe(())])
        moved = evaluate([Probe(((seed, eps),)) for seed in seeds])
        slopes = tuple((loss - base) / eps for loss in moved)
        return GradientEstimate(tuple(seeds), slopes, (base, *moved))


def loss(probe: Probe) -> float:
    return sum((seed + 0.5) * a + 3 * a * a for seed, a in probe.terms)


ESTIMATORS = {name: lambda name=name: registry.make_estimator(name) for name in registry.ESTIMATORS}
ESTIMATORS["in two calls"] = lambda: InTwoCalls(n=3)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_losses_in_any_order_give_the_estimators_own_estimate(name: str) -> None:
    estimator = ESTIMATORS[name]()
    seeds = range(10, 10 + estimator.n)
    expected = estimator.estimate(lambda probes: list(map(loss, probes)), seeds, 0.1)
    pending = PendingEstimate(estimator, seeds, 0.1)
    rng = random.Random(0)
    while pending.result is None:
        number = rng.choice(pending.waiting)
        pending.tell(number, loss(pending.probes[number]))
    assert pending.result == expected


def test_what_was_asked_and_lost_is_asked_again_after_all_others() -> None:
    pending = PendingEstimate(zoopt.NSPSA(n=2), range(2), 0.1)
    assert [pending.ask() for _ in range(6)] == [0, 1, 2, 3, 0, 1]
    pending.tell(2, 1.0)
    pending.tell(2, 5.0)
    assert [pending.ask() for _ in range(3)] == [3, 0, 1]
