"""Gaussian directions: every component standard normal."""

from __future__ import annotations

from zoopt.directions.dense import DenseDirection
from zoopt.directions.kernel.gaussian import GAUSSIAN


class Gaussian(DenseDirection):
    """z with independent standard normal components, as in MeZO."""

    name = "gaussian"
    unit = GAUSSIAN
