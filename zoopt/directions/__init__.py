"""Direction families: the distributions of z. One file per family, with their common kernel."""

from zoopt.directions.gaussian import Gaussian
from zoopt.directions.kernel.compilation import kernel_mode
from zoopt.directions.lowrank import LowRank
from zoopt.directions.rademacher import Rademacher
from zoopt.directions.sphere import Sphere

__all__ = ["Gaussian", "LowRank", "Rademacher", "Sphere", "kernel_mode"]
