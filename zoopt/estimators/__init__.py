"""Estimators: which probes, and how their losses become coefficients. One file per estimator."""

from zoopt.estimators.base import ZOEstimator
from zoopt.estimators.dueling import Dueling
from zoopt.estimators.nspsa import NSPSA
from zoopt.estimators.onesided import OneSided
from zoopt.estimators.ranking import Ranking
from zoopt.estimators.spsa import SPSA

__all__ = ["NSPSA", "SPSA", "Dueling", "OneSided", "Ranking", "ZOEstimator"]
