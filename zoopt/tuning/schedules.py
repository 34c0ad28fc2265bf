"""Schedules: how the learning rate and ε change in the course of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, steps: 1.0,
    "linear": lambda step, steps: 1.0 - step / steps,
    "cosine": lambda step, steps: 0.5 * (1.0 + math.cos(math.pi * step / steps)),
    "power": lambda step, steps: (1.0 + step / (1.0 + steps / 10)) ** -0.602,
}
"""Factor of the learning rate, as a function of (updates so far, total updates).

"power" is a/(A + k + 1)^0.602 with A a tenth of the steps (J. C. Spall 1998, "Implementation of the
simultaneous perturbation algorithm for stochastic optimization", IEEE TAES 34(3)).
"""

EPS_SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, steps: 1.0,
    "linear": lambda step, steps: 1.0 - 0.9 * step / steps,
    "power": lambda step, steps: (step + 1.0) ** -0.101,
}
"""Factor of ε, as a function of (updates so far, total updates); "power" is Spall's, as above."""
