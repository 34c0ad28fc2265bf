"""Projected SGD: θ ← max((1 − ηλ) θ − η ĝ, low). State: none."""

from __future__ import annotations

import torch

from zoopt.interfaces import UpdateStep
from zoopt.parameters.masters import Vectors
from zoopt.updates.sgd import SGD


class Projected:
    """Gradient descent that keeps every parameter at or above a lower bound.

    For parameters that are meaningless below it, such as the scales of quantized weights. The
    projection takes a separate pass, so updates are not deferred to the next probe.

    Args:
        low: the lower bound.
    """

    name = "projected"

    def __init__(self, low: float = 0.0) -> None:
        self.low = float(low)

    @torch.no_grad()
    def apply(self, step: UpdateStep) -> None:
        """θ ← max(decay · θ − lr · ĝ, low)."""
        SGD().apply(step)
        step.engine.settle()
        for slot in step.slots:
            slot.exact.clamp_(min=self.low)
        Vectors(step.slots).publish()
