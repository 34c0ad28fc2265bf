"""Diagnostics of a run from its own probes, and advice if they carry little signal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoopt.objectives.forms import forms_of
from zoopt.objectives.metric import Metric
from zoopt.optimizer import ZOOptimizer
from zoopt.tasks import Scores, TaskObjective

MANY = 0.5
"""Share of silent directions from which advice is given."""
FAINT = 0.25
"""Signal-to-noise ratio below which advice is given."""


def silent_share(coefficients: Sequence[float]) -> float:
    """The share of a step's directions whose probes had the same value, so that c = 0.

    For a piecewise constant metric such as accuracy, f(θ + εz) = f(θ − εz) if no prediction
    changes between the two probes.

    >>> silent_share([0.0, 0.3, 0.0, -1.0])
    0.5
    """
    return sum(c == 0.0 for c in coefficients) / len(coefficients)


class Halves:
    """Measures the minibatch noise of a projected gradient by splitting batches into halves.

    This needs no further forwards, since both halves' predictions are known. Each coefficient c of
    a step is estimated from either half, as c₁ and c₂. Their agreement is signal, the rest noise:
    Σ c₁c₂ ÷ Σ (c₁² + c₂²)/2 is the split-half correlation r, and 2r/(1 + r) that of whole batches
    (Spearman 1910, Brown 1910).
    """

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] | None = []

    def see(self, objective: TaskObjective, said: Scores, references: Any) -> None:
        """Scores both halves of each probe's predictions of a batch."""
        costly = any(form.costly for form in forms_of(objective.metric.needs))
        splits = len(references) > 1 and not costly
        if self._seen is None or not splits:
            return
        try:
            for scores in said:
                halves = [
                    objective.score(scores[start::2], references[start::2]) for start in (0, 1)
                ]
                self._seen.append((halves[0], halves[1]))
        except Exception:  # a metric that is undefined on half a batch, such as ROC-AUC
            self._seen = None

    def forget(self) -> None:
        """Discards the scores of the current step."""
        if self._seen is not None:
            self._seen = []

    def of(self, optimizer: ZOOptimizer) -> dict[str, float]:
        """Σ c₁c₂ and Σ (c₁² + c₂²)/2 of the last step, as entries of its metrics line."""
        estimate, seen = optimizer.estimated, self._seen
        self.forget()
        if not seen or estimate is None or len(seen) != len(estimate.losses):
            return {}
        sign = -1.0 if optimizer.maximize else 1.0
        eps = float(optimizer.param_groups[0]["eps"])

        def coefficients(half: int) -> tuple[float, ...]:
            losses = [sign * values[half] for values in seen]
            return optimizer.estimator.from_losses(losses, estimate.seeds, eps).coefficients

        first, second = coefficients(0), coefficients(1)
        pairs = list(zip(first, second, strict=True))
        return {
            "shared": sum(a * b for a, b in pairs),
            "total": sum((a * a + b * b) / 2 for a, b in pairs),
        }


def reliability(steps: Iterable[Mapping[str, Any]], less: float = 0.0) -> float | None:
    """The share of a batch's squared coefficients that other batches have in common: 2r/(1 + r).

    Args:
        steps: the entries from :meth:`Halves.of` of each step.
        less: number of standard errors to subtract from r. The error is (1 − r²)/√N, with the
            effective number of steps N = (Σ t)²/Σ t² for totals t, which differ widely.

    Returns:
        0 to 1; None if batches were not split, or all coefficients were 0.

    Example:
        >>> reliability([{"shared": 1.0, "total": 2.0}, {}])
        0.6666666666666666
    """
    split = [step for step in steps if "total" in step]
    total = sum(step["total"] for step in split)
    if not total > 0:
        return None
    r = sum(step["shared"] for step in split) / total
    error = (1 - r * r) * math.sqrt(sum(step["total"] ** 2 for step in split)) / total
    r = max(0.0, r - less * error)
    return float(2 * r / (1 + r))


@dataclass(frozen=True)
class Learning:
    """Statistics of how much signal a run's probes carry.

    Attributes:
        silent: share of directions whose probes had the same value.
        snr: signal-to-noise ratio of a projected gradient, √(R/(1 − R)) for a reliability R of
            whole batches; None if batches were not split.
        noise_floor: difference of two evaluations of the same θ on the same batch.
        spread: mean over steps of the range of the probes' values.
    """

    silent: float
    snr: float | None
    noise_floor: float
    spread: float

    @classmethod
    def of(cls, steps: Iterable[Mapping[str, Any]], noise_floor: float) -> Learning:
        """Computes the statistics from the lines of ``metrics.jsonl``."""
        steps = [step for step in steps if "silent" in step]
        whole, snr = reliability(steps), None
        if whole is not None:
            snr = math.sqrt(whole / (1 - whole)) if whole < 1 else math.inf
        return cls(
            _mean([step["silent"] for step in steps]),
            snr,
            noise_floor,
            _mean([step["spread"] for step in steps]),
        )

    def __str__(self) -> str:
        parts = [f"{self.silent:.0%} of directions silent"]
        if self.snr is not None:
            parts.append(f"signal to noise of a projected gradient {self.snr:.2g}")
        exact = "none" if self.noise_floor == 0 else f"{self.noise_floor:.2g}"
        parts.append(f"noise floor {exact} (spread of probes {self.spread:.2g})")
        return ", ".join(parts)

    def advice(self, metric: Metric, batch_size: int, eps: float) -> list[str]:
        """Returns advice on what to change; empty if the signal suffices.

        Args:
            metric: the run's objective.
            batch_size: the run's batch size.
            eps: the run's eps.
        """
        hints = []
        if self.silent >= MANY:
            change = (
                f"Use larger batches (batch_size={4 * batch_size}), a larger eps "
                f"(eps={10 * eps:g}) or more directions per step (n)"
            )
            if metric.smooth:
                change += f", or start with {metric.smooth} (surrogate_steps=...)"
            elif metric.piecewise_constant:
                change += ", or start with a smooth objective (surrogate=..., surrogate_steps=...)"
            hints.append(
                f"For {self.silent:.0%} of the directions the probes gave the same value, so they "
                f"contribute nothing to the gradient estimate. {change}."
            )
        elif self.snr is not None and self.snr < FAINT:
            hints.append(
                f"The gradient estimate is dominated by minibatch noise (signal to noise "
                f"{self.snr:.2g}). Use larger batches (batch_size={4 * batch_size}) or a lower lr "
                "with more steps."
            )
        if 0 < self.spread < 2 * self.noise_floor:
            hints.append(
                f"Probes differ by {self.spread:.2g}, and repeated evaluations of the same weights "
                f"by {self.noise_floor:.2g}: the objective is too noisy for this eps. Use a "
                f"larger one (eps={10 * eps:g}), or make the objective deterministic."
            )
        return hints


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
