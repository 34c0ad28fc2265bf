"""Does the run learn? What its own probes show, and what to change if they show little."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoopt.objectives.metric import Metric
from zoopt.optimizer import ZOOptimizer
from zoopt.tasks import Scores, TaskObjective

MANY = 0.5
"""From this share of silent directions on, a run says what to change."""
FAINT = 0.25
"""Below this ratio of signal to noise, a run says what to change."""
_UNSPLIT = ("completions", "model")
"""Needs of metrics that are not asked once more about half a batch: each asking may be dear."""


def silent_share(coefficients: Sequence[float]) -> float:
    """The share of a step's directions whose probes gave the same value.

    They move nothing: a metric that counts, such as accuracy, gives f(θ + εz) = f(θ − εz) wherever
    no prediction changed sides.

    >>> silent_share([0.0, 0.3, 0.0, -1.0])
    0.5
    """
    return sum(c == 0.0 for c in coefficients) / len(coefficients)


class Halves:
    """How much of a projected gradient is the batch's own accident, from the two halves of batches.

    Both halves' predictions are there, so that this costs no forward. A coefficient c of the step
    is estimated once from each half, as c₁ and c₂. What they share is signal, and what they do not
    is noise: Σ c₁c₂ against Σ (c₁² + c₂²)/2 is the split-half correlation r, and 2r/(1 + r) that of
    whole batches (Spearman 1910, Brown 1910).
    """

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] | None = []

    def see(self, objective: TaskObjective, said: Scores, references: Any) -> None:
        """Scores both halves of what each probe said of a batch."""
        needs = objective.metric.needs
        splits = len(references) > 1 and not any(each in needs for each in _UNSPLIT)
        if self._seen is None or not splits:
            return
        try:
            for scores in said:
                halves = [
                    objective.score(scores[start::2], references[start::2]) for start in (0, 1)
                ]
                self._seen.append((halves[0], halves[1]))
        except Exception:  # a metric that half a batch is too little for, such as ROC-AUC
            self._seen = None

    def forget(self) -> None:
        """Lets go of what it saw of a step."""
        if self._seen is not None:
            self._seen = []

    def of(self, optimizer: ZOOptimizer) -> dict[str, float]:
        """Σ c₁c₂ and Σ (c₁² + c₂²)/2 of the step just made, as entries of its line."""
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
        steps: what :meth:`Halves.of` said of each.
        less: take so many standard errors of r off, (1 − r²)/√N for N steps of equal size. Sizes
            differ widely, so N is (Σ t)²/Σ t² with the sizes t.

    Returns:
        0 to 1; None where batches were not split, or no coefficient was other than 0.

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
    """How much a run's probes say about the objective.

    Attributes:
        silent: share of directions whose probes gave the same value.
        snr: ratio of signal to noise of a projected gradient, √(R/(1 − R)) for a reliability R of
            whole batches; None where batches were not split.
        noise_floor: difference of two evaluations of the same θ on the same batch.
        spread: difference between the probes of a step, on average.
    """

    silent: float
    snr: float | None
    noise_floor: float
    spread: float

    @classmethod
    def of(cls, steps: Iterable[Mapping[str, Any]], noise_floor: float) -> Learning:
        """From the lines of ``metrics.jsonl``."""
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
        """What to change, in plain words; nothing where enough is learned.

        Args:
            metric: the run's objective.
            batch_size: the run's.
            eps: the run's.
        """
        hints = []
        if self.silent >= MANY:
            change = (
                f"Take larger batches (batch_size={4 * batch_size}), a larger eps "
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
                f"{self.snr:.2g}). Take larger batches (batch_size={4 * batch_size}) or a lower lr "
                "with more steps."
            )
        if 0 < self.spread < 2 * self.noise_floor:
            hints.append(
                f"Probes differ by {self.spread:.2g}, and repeated evaluations of the same weights "
                f"by {self.noise_floor:.2g}: the objective is too noisy for this eps. Take a "
                f"larger one (eps={10 * eps:g}), or make the objective deterministic."
            )
        return hints


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
