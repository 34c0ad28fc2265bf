"""Conformance checks for objectives, estimators, directions and update rules.

zoopt's own tests run these checks over the registry, so that every registered member is tested.
Other packages can call them from their tests for their own members; each raises ``AssertionError``
with what was found and expected.

>>> import zoopt
>>> check_direction(zoopt.Rademacher())
>>> check_estimator(lambda: zoopt.SPSA(eps=1e-3), zoopt.Rademacher(), samples=200)
>>> check_update(zoopt.SGD)
>>> check_objective("f1_macro")
>>> check_objective("exact_match", references=["Paris", "Lyon", "Nice"])
"""

from zoopt.testing.common import SIGMAS, VARIANCES, make_slots, materialize, noise
from zoopt.testing.directions import check_direction
from zoopt.testing.estimators import Quadratic, check_estimator
from zoopt.testing.objectives import check_objective
from zoopt.testing.updates import check_update

__all__ = [
    "SIGMAS",
    "VARIANCES",
    "Quadratic",
    "check_direction",
    "check_estimator",
    "check_objective",
    "check_update",
    "make_slots",
    "materialize",
    "noise",
]
