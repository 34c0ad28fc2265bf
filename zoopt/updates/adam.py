"""Adam on the estimate, with bias correction and decoupled decay. State: 8 bytes per parameter.

D. P. Kingma and J. Ba 2015, arXiv 1412.6980; I. Loshchilov and F. Hutter 2019, arXiv 1711.05101;
on zeroth-order estimates: MeZO-Adam, arXiv 2305.17333, appendix B.3.
"""

from __future__ import annotations

import math

import torch

from zoopt.interfaces import Change, UpdateStep
from zoopt.updates.dense import buffer, descend, settled_slots


class Adam:
    """m ← β₁m + (1−β₁)ĝ, v ← β₂v + (1−β₂)ĝ², θ ← (1−ηλ)θ − η m̂ / (√v̂ + ζ).

    ĝ is materialized for one tensor at a time.

    Args:
        beta1: decay rate of m.
        beta2: decay rate of v.
        zeta: keeps the denominator from zero (Adam's ε; here ε is the perturbation scale).
    """

    name = "adam"

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, zeta: float = 1e-8) -> None:
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name}={beta} must be in [0, 1)")
        self.beta1, self.beta2, self.zeta = beta1, beta2, zeta

    @torch.no_grad()
    def apply(self, step: UpdateStep) -> None:
        """Updates tensor by tensor."""
        for slot in settled_slots(step):
            m, v = buffer(step, slot, "exp_avg"), buffer(step, slot, "exp_avg_sq")
            state = step.state(slot)
            state["step"] = t = state.get("step", 0) + 1
            g = torch.zeros_like(m)
            step.direction.add_(Change.of(g, slot.index, step.gradient.terms(slot)))
            m.mul_(self.beta1).add_(g, alpha=1 - self.beta1)
            v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
            scale = math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
            zeta = self.zeta * math.sqrt(1 - self.beta2**t)
            torch.div(m * scale, v.sqrt().add_(zeta), out=g)
            descend(step, slot, g)
