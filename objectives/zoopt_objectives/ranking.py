"""Objectives for rankings. A batch is one ranked list: all documents of one query.

Predictions are the scores that rank the documents, higher first, and references their relevances,
both of shape (N,). A batch with documents of several queries would be ranked as one list, so each
query needs its own batch; the mean over batches is then the usual mean over queries. Both metrics
are piecewise constant: they change only if two documents swap places.
"""

from __future__ import annotations

from numpy.typing import ArrayLike
from sklearn.metrics import ndcg_score

from zoopt import register_objective
from zoopt_objectives import checks


@register_objective(
    "ndcg", higher_is_better=True, needs="values", bounds=(0, 1), piecewise_constant=True
)
def ndcg(predictions: ArrayLike, references: ArrayLike) -> float:
    """Discounted cumulative gain of the list, divided by that of the best order, in [0, 1].

    The gain at rank r is relevance / log2(r + 1) (Järvelin & Kekäläinen 2002); documents whose
    scores tie share the mean of their ranks' discounts. 0 if nothing is relevant.

    Raises:
        ValueError: a relevance is negative, or there is only one document to rank.

    >>> round(ndcg([0.9, 0.5, 0.1], [0.0, 1.0, 0.0]), 4)
    0.6309
    """
    scores, relevances = checks.values(predictions, references)
    return float(ndcg_score([relevances], [scores]))


@register_objective(
    "mrr", higher_is_better=True, needs="values", bounds=(0, 1), piecewise_constant=True
)
def mrr(predictions: ArrayLike, references: ArrayLike) -> float:
    """One over the rank of the first relevant document, in [0, 1]; its mean over lists is the MRR.

    Relevant documents have a relevance above 0. A document that ties with an irrelevant one is
    ranked behind it, so that equal scores for all are not rewarded. 0 if nothing is relevant.

    >>> mrr([0.9, 0.5, 0.1], [0.0, 1.0, 1.0])
    0.5
    """
    scores, relevances = checks.values(predictions, references)
    relevant = relevances > 0
    if not relevant.any():
        return 0.0
    return 1 / (1 + int((scores[~relevant] >= scores[relevant].max()).sum()))
