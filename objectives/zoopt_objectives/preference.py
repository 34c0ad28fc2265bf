"""Objectives of preference: margins score(chosen) − score(rejected) against people's judgements.

References are records with the share of judgements for the chosen one, and the pair's weight, as
:class:`zoopt.Preference` provides them. The win rate is the actual goal, but has no gradient;
Bradley-Terry and DPO are its smooth surrogates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit

from zoopt import register_objective
from zoopt_objectives import checks

Judged = NDArray[np.void]


@register_objective(
    "win_rate",
    higher_is_better=True,
    needs="margins",
    bounds=(0, 1),
    piecewise_constant=True,
    smooth="bradley_terry",
)
def win_rate(margins: ArrayLike, judged: Judged) -> float:
    """Share of people's judgements that the model's choice agrees with, in [0, 1].

    Pairs are weighted; a margin of 0 counts as half right.

    >>> judged = np.array([(1.0, 1.0), (0.75, 4.0)], dtype=[("share", float), ("weight", float)])
    >>> win_rate([2.0, -1.0], judged)
    0.4
    """
    margin, truth = _both(margins, judged)
    right = (1 + np.sign(margin)) / 2
    agreed = truth["share"] * right + (1 - truth["share"]) * (1 - right)
    return float(np.average(agreed, weights=truth["weight"]))


@register_objective("bradley_terry", higher_is_better=False, needs="margins", bounds=(0, np.inf))
def bradley_terry(margins: ArrayLike, judged: Judged) -> float:
    """Mean −log σ(margin) over judgements, in nats: the loss of a Bradley-Terry reward model.

    A judgement for the rejected one counts −log σ(−margin), a tie half of both. Bradley and Terry
    1952, "Rank analysis of incomplete block designs", Biometrika 39.

    >>> judged = np.array([(1.0, 1.0)], dtype=[("share", float), ("weight", float)])
    >>> round(bradley_terry([0.0], judged), 4)
    0.6931
    """
    margin, truth = _both(margins, judged)
    share = truth["share"]
    loss = -share * log_expit(margin) - (1 - share) * log_expit(-margin)
    return float(np.average(loss, weights=truth["weight"]))


@register_objective(
    "dpo", higher_is_better=False, needs="margins", bounds=(0, np.inf), from_base=True
)
def dpo(margins: ArrayLike, references: Any, *, beta: float = 0.1) -> float:
    """Mean −log σ(β (margin − base margin)), in nats: direct preference optimization.

    Margins are of log-probabilities. The base model is the one that ``zoopt.tune`` starts from, or
    otherwise the one given to ``task.anchor(model, examples)``. Rafailov et al. 2023, "Direct
    preference optimization" (arXiv 2305.18290), equation 7.

    Args:
        margins: the tuned model's margins, shape (N,).
        references: the base model's margins, and people's judgements, as its two ``items``.
        beta: the scale β of margins; the smaller, the further tuning may go.

    >>> from zoopt.objectives.metric import Parts
    >>> judged = np.array([(1.0, 1.0)], dtype=[("share", float), ("weight", float)])
    >>> round(dpo([3.0], Parts((np.array([3.0]), judged))), 4)
    0.6931
    """
    base, judged = references.items
    return bradley_terry(beta * (np.asarray(margins, dtype=float) - base), judged)


def _both(margins: ArrayLike, judged: Judged) -> tuple[checks.Floats, Judged]:
    margin, truth = np.asarray(margins, dtype=np.float64), np.asarray(judged)
    checks.check_counts(margin.shape[0], truth.shape[0])
    return margin, truth
