"""Rademacher directions: every component +1 or −1 with equal probability.

E[z zᵀ] = I. Among all distributions with independent components, this one gives the estimate the
least variance (Spall 1992).
"""

from __future__ import annotations

from zoopt.directions.dense import DenseDirection
from zoopt.directions.kernel.rademacher import RADEMACHER


class Rademacher(DenseDirection):
    """z with independent components of ±1."""

    name = "rademacher"
    unit = RADEMACHER
