"""Estimators: which probes, and how their losses become coefficients. One file an estimator."""

from zoopt.estimators.base import ZOEstimator
from zoopt.estimators.nspsa import NSPSA
from zoopt.estimators.spsa import SPSA

__all__ = ["NSPSA", "SPSA", "ZOEstimator"]
