"""The conformance kit: what every member of an axis must do, whoever wrote it.

zoopt's own tests run these checks over the registry, so a new member is tested because it is
registered. An objective, estimator, direction or update rule of another package is held to the same
by calling them from its tests; each raises ``AssertionError`` with what was found and expected.

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
