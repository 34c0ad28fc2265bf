"""Update rules: how ĝ moves θ. One file per rule."""

from zoopt.updates.adam import Adam
from zoopt.updates.momentum import Momentum
from zoopt.updates.projected import Projected
from zoopt.updates.sgd import SGD

__all__ = ["SGD", "Adam", "Momentum", "Projected"]
