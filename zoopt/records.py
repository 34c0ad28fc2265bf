"""What a step did: a line of the log, and all that repeating the step needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """All that a step did, enough to repeat it without the objective.

    Attributes:
        step: how many updates came before.
        seeds: the step's directions.
        losses: what its probes returned, to be minimized, in order.
        lr: learning rate of each parameter group.
        eps: perturbation scale of each parameter group.
        weight_decay: weight decay of each parameter group.
        chained: whether its first probe shared a pass over θ with the update before it, which
            rounds differently from restoring first.
        n: how many directions were drawn; None in logs of format 1, where it never changes.
        clip: bound on the coefficients; None where there was none.
    """

    step: int
    seeds: tuple[int, ...]
    losses: tuple[float, ...]
    lr: tuple[float, ...]
    eps: tuple[float, ...]
    weight_decay: tuple[float, ...]
    chained: bool
    n: int | None = None
    clip: float | None = None
