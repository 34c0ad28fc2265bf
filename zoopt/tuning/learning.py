"""Does it learn? What a run says where its probes do not tell one direction from another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MANY = 0.5
"""From this share of silent directions on, a run says what to change."""


def silent_share(coefficients: Sequence[float]) -> float:
    """The share of a step's directions whose probes gave the same value.

    They move nothing: a metric that counts, such as accuracy, gives f(θ + εz) = f(θ − εz) wherever
    no prediction changed sides.

    >>> silent_share([0.0, 0.3, 0.0, -1.0])
    0.5
    """
    return sum(c == 0.0 for c in coefficients) / len(coefficients)


def advice(
    steps: Iterable[Mapping[str, Any]], piecewise_constant: bool, batch_size: int, eps: float
) -> str:
    """What to change, in plain words; empty where enough directions say something.

    Args:
        steps: lines of ``metrics.jsonl``, of which those with ``"silent"`` count.
        piecewise_constant: whether the objective is one that often stays the same.
        batch_size: the run's.
        eps: the run's.
    """
    shares = [step["silent"] for step in steps if "silent" in step]
    share = sum(shares) / len(shares) if shares else 0.0
    if share < MANY:
        return ""
    change = (
        f"Take larger batches (batch_size={4 * batch_size}), a larger eps (eps={10 * eps:g}) or "
        "more directions a step (n)"
    )
    if piecewise_constant:
        change += ", or begin with a smooth objective such as cross_entropy"
    return (
        f"{share:.0%} of the directions taught nothing: the objective was the same at both of "
        f"their probes. {change}."
    )
