"""Objectives for generated texts with one or several reference texts for each prediction.

Of several references, the nearest one counts. All are piecewise constant: a text changes only if
another token becomes the most likely. ROUGE, BLEU and chrF need
``pip install "zoopt-torch[text]"``.
"""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from zoopt import register_objective
from zoopt_objectives import checks

References = Sequence[str | Sequence[str]]

_PUNCTUATION = str.maketrans("", "", string.punctuation)


@register_objective(
    "exact_match", higher_is_better=True, needs="texts", bounds=(0, 1), piecewise_constant=True
)
def exact_match(predictions: Sequence[str], references: References) -> float:
    """Share of texts that equal a reference, ignoring surrounding white space, in [0, 1].

    >>> exact_match(["Paris ", "lyon"], ["Paris", ["Lyon", "Lyons"]])
    0.5
    """
    return _mean_of_best(predictions, references, lambda a, b: a.strip() == b.strip())


@register_objective(
    "squad_f1", higher_is_better=True, needs="texts", bounds=(0, 1), piecewise_constant=True
)
def squad_f1(predictions: Sequence[str], references: References) -> float:
    """Mean F1 of the words shared with a reference, as SQuAD scores answers, in [0, 1].

    Case, punctuation, articles and white space are ignored. Two texts without words agree fully,
    as in SQuAD 2 (Rajpurkar et al. 2018, arXiv 1806.03822).

    >>> round(squad_f1(["The Eiffel tower!"], [["eiffel", "a tower in Paris"]]), 4)
    0.6667
    """
    return _mean_of_best(predictions, references, _shared_words)


@register_objective(
    "rouge1", higher_is_better=True, needs="texts", bounds=(0, 1), piecewise_constant=True
)
def rouge1(predictions: Sequence[str], references: References) -> float:
    """Mean F-measure of the words shared with a reference, in [0, 1]: ROUGE-1, without stemming.

    Words are sequences of a to z and digits, in lower case: ROUGE is for English.

    >>> round(rouge1(["the cat sat"], ["the cat ran off"]), 4)
    0.5714
    """
    return _rouge("rouge1", predictions, references)


@register_objective(
    "rouge2", higher_is_better=True, needs="texts", bounds=(0, 1), piecewise_constant=True
)
def rouge2(predictions: Sequence[str], references: References) -> float:
    """Mean F-measure of the word pairs shared with a reference, in [0, 1]: ROUGE-2.

    >>> round(rouge2(["the cat sat"], ["the cat ran off"]), 4)
    0.4
    """
    return _rouge("rouge2", predictions, references)


@register_objective(
    "rougeL", higher_is_better=True, needs="texts", bounds=(0, 1), piecewise_constant=True
)
def rouge_l(predictions: Sequence[str], references: References) -> float:
    """Mean F-measure of the longest word sequence shared with a reference, in [0, 1]: ROUGE-L.

    The words of the sequence are in the same order, but not necessarily adjacent.

    >>> round(rouge_l(["the cat has sat"], ["the cat sat"]), 4)
    0.8571
    """
    return _rouge("rougeL", predictions, references)


@register_objective(
    "bleu", higher_is_better=True, needs="texts", bounds=(0, 1), piecewise_constant=True
)
def bleu(predictions: Sequence[str], references: References) -> float:
    """BLEU of all texts as one corpus, computed by sacreBLEU, in [0, 1] rather than percent.

    It compares sequences of up to four words with all references. 0 if no text has four words.

    >>> round(bleu(["the cat sat on the mat"], ["the cat sat on a mat"]), 4)
    0.5373
    """
    with checks.text_extra("bleu"):
        from sacrebleu.metrics.bleu import BLEU
    return _corpus_score(BLEU(force=True), predictions, references)


@register_objective(
    "chrf", higher_is_better=True, needs="texts", bounds=(0, 1), piecewise_constant=True
)
def chrf(predictions: Sequence[str], references: References) -> float:
    """Recall-weighted F2 of sequences of up to six characters, over the corpus, in [0, 1]: chrF.

    >>> round(chrf(["the cat sat"], ["the cat sits"]), 4)
    0.6103
    """
    with checks.text_extra("chrf"):
        from sacrebleu.metrics.chrf import CHRF
    return _corpus_score(CHRF(), predictions, references)


def _mean_of_best(
    predictions: Sequence[str], references: References, score: Callable[[str, str], float]
) -> float:
    pairs = checks.alternatives(predictions, references)
    return float(np.mean([max(score(text, other) for other in known) for text, known in pairs]))


def _shared_words(text: str, reference: str) -> float:
    words, others = _squad_words(text), _squad_words(reference)
    if not words or not others:
        return float(words == others)
    return 2 * (Counter(words) & Counter(others)).total() / (len(words) + len(others))


def _squad_words(text: str) -> list[str]:
    """A text's words as SQuAD's official script compares them: without punctuation and articles."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _rouge(kind: str, predictions: Sequence[str], references: References) -> float:
    pairs = checks.alternatives(predictions, references)
    scorer = _rouge_scorer(kind)
    return float(np.mean([scorer.score_multi(known, text)[kind].fmeasure for text, known in pairs]))


@functools.cache
def _rouge_scorer(kind: str) -> Any:
    with checks.text_extra(kind):
        from rouge_score.rouge_scorer import RougeScorer
    return RougeScorer([kind])


def _corpus_score(metric: Any, predictions: Sequence[str], references: References) -> float:
    """A corpus score of sacreBLEU, which takes references as lists: all first ones, all second, ...

    It is clipped to [0, 1], which rounding may exceed because sacreBLEU computes with logarithms.
    """
    pairs = checks.alternatives(predictions, references)
    streams = [list(stream) for stream in zip_longest(*(known for _, known in pairs))]
    score = metric.corpus_score([text for text, _ in pairs], streams).score / 100
    return float(min(max(score, 0.0), 1.0))
