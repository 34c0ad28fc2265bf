"""SGD: θ ← (1 − ηλ) θ − η ĝ, entirely in seed space. State: none."""

from __future__ import annotations

from zoopt.interfaces import Displacement, UpdateStep


class SGD:
    """Gradient descent with decoupled weight decay, done within the engine's pass over θ."""

    name = "sgd"

    def apply(self, step: UpdateStep) -> None:
        """θ ← decay · θ − lr · ĝ."""
        moves = tuple(
            tuple((seed, -lr * c) for seed, c in terms)
            for lr, terms in zip(step.lr, step.gradient.groups, strict=True)
        )
        step.engine.commit(Displacement(moves), step.decay)
