"""Engines: how a probe is evaluated, and what state θ is in meanwhile. One file an engine."""

from zoopt.engines.copy import Copy
from zoopt.engines.inplace import InPlace
from zoopt.engines.overlay import Overlay, UnseenParameterError

__all__ = ["Copy", "InPlace", "Overlay", "UnseenParameterError"]
