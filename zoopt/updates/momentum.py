"""Momentum: m ← β m + (1 − β) ĝ, θ ← (1 − ηλ) θ − η m. State: 4 bytes per parameter."""

from __future__ import annotations

from zoopt.interfaces import Change, UpdateStep
from zoopt.updates.dense import buffer, descend, settled_slots


class Momentum:
    """Gradient descent along an exponential average of the estimates, as in MeZO-momentum.

    Args:
        beta: decay rate of m.
    """

    name = "momentum"

    def __init__(self, beta: float = 0.9) -> None:
        if not 0 <= beta < 1:
            raise ValueError(f"beta={beta} must be in [0, 1)")
        self.beta = beta

    def apply(self, step: UpdateStep) -> None:
        """Updates m in one fused pass and moves θ along it in another."""
        for slot in settled_slots(step):
            m = buffer(step, slot, "exp_avg")
            terms = tuple((s, (1 - self.beta) * c) for s, c in step.gradient.terms(slot))
            step.direction.add_(Change.of(m, slot.index, terms, self.beta))
            descend(step, slot, m)
