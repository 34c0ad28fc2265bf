"""Engines: how a probe is evaluated, and what state θ is in meanwhile. One file per engine."""

from zoopt.engines.batched import Batched
from zoopt.engines.copy import Copy
from zoopt.engines.inplace import InPlace
from zoopt.engines.interception.mode import UnseenParameterError
from zoopt.engines.overlay import Overlay

__all__ = ["Batched", "Copy", "InPlace", "Overlay", "UnseenParameterError"]
