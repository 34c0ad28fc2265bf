"""The objectives for texts and completions against their definitions, written out by hand."""

import functools
import math
import re
import sys
from collections import Counter

import numpy as np
import pytest

import zoopt
from zoopt_objectives import patterns, rewards, texts

RNG = np.random.default_rng(2)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "off", "to", "town"]
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(5, 12))) for _ in range(20)]
KNOWN = [
    [" ".join(RNG.choice(WORDS, RNG.integers(5, 12))) for _ in range(RNG.integers(1, 4))]
    for _ in TEXTS
]
EXAMPLES = [{"prompt": "Well?"} for _ in TEXTS]

NEED_TEXTS = ["exact_match", "squad_f1", "rouge1", "rouge2", "rougeL", "bleu", "chrf"]
NEED_COMPLETIONS = ["words", "repetition", "vader"]


def runs(items, n):
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def f_measure(shared, mine, theirs):
    return 2 * shared / (mine + theirs) if mine + theirs else 0.0


def rouge_n(n):
    def score(text, other):
        mine, theirs = runs(text.split(), n), runs(other.split(), n)
        shared = sum(min(count, theirs[run]) for run, count in mine.items())
        return f_measure(shared, sum(mine.values()), sum(theirs.values()))

    return score


def longest_common(a, b):
    if not a or not b:
        return 0
    row = [0] * (len(b) + 1)
    for x in a:
        above = row
        row = [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(row[j], above[j + 1]))
    return row[-1]


def rouge_longest(text, other):
    a, b = text.split(), other.split()
    return f_measure(longest_common(a, b), len(a), len(b))


def squad(text, other):
    # The texts are in lower case and have no punctuation: only articles are to be dropped.
    a, b = ([word for word in t.split() if word not in ("a", "the")] for t in (text, other))
    shared = sum(min(a.count(word), b.count(word)) for word in set(a))
    return f_measure(shared, len(a), len(b))


BEST_OF = {
    "rouge1": rouge_n(1),
    "rouge2": rouge_n(2),
    "rougeL": rouge_longest,
    "squad_f1": squad,
}


@pytest.mark.parametrize("name", BEST_OF)
def test_the_best_reference_counts_for_each_text(name):
    expected = np.mean(
        [
            max(BEST_OF[name](t, other) for other in known)
            for t, known in zip(TEXTS, KNOWN, strict=True)
        ]
    )
    assert 0.05 < expected < 0.95
    assert zoopt.get_objective(name)(TEXTS, KNOWN) == pytest.approx(expected)


def bleu_by_hand(predictions, references):
    """Papineni et al. 2002: runs clipped to the reference with most of them, nearest length."""
    correct, total = [0] * 4, [0] * 4
    mine, theirs = 0, 0
    for text, known in zip(predictions, references, strict=True):
        words, others = text.split(), [other.split() for other in known]
        mine += len(words)
        theirs += min((abs(len(o) - len(words)), len(o)) for o in others)[1]
        for n in range(1, 5):
            for run, count in runs(words, n).items():
                correct[n - 1] += min(count, max(runs(o, n)[run] for o in others))
                total[n - 1] += count
    precision = math.exp(sum(math.log(c / t) for c, t in zip(correct, total, strict=True)) / 4)
    return precision * math.exp(min(0.0, 1 - theirs / mine))


@pytest.mark.parametrize("cut", [None, 5])
def test_bleu_is_of_the_corpus_with_all_references_and_a_penalty_for_brevity(cut):
    # Six words of each first reference, so that runs of four are found and the penalty counts.
    guess = [
        " ".join((known[0].split() + text.split())[: cut and cut + len(text) % 3])
        for text, known in zip(TEXTS, KNOWN, strict=True)
    ]
    expected = bleu_by_hand(guess, KNOWN)
    assert 0.1 < expected < 0.99
    assert zoopt.get_objective("bleu")(guess, KNOWN) == pytest.approx(expected)


def chrf_by_hand(predictions, references):
    """Popović 2015: precision and recall of each order over the corpus, white space left out."""
    shared, mine, theirs = np.zeros(6), np.zeros(6), np.zeros(6)
    for text, other in zip(predictions, references, strict=True):
        a, b = text.replace(" ", ""), other.replace(" ", "")
        for n in range(1, 7):
            x, y = runs(a, n), runs(b, n)
            shared[n - 1] += (x & y).total()
            mine[n - 1] += x.total()
            theirs[n - 1] += y.total()
    precision, recall = (shared / mine).mean(), (shared / theirs).mean()
    return 5 * precision * recall / (4 * precision + recall)


def test_chrf_is_of_the_corpus_and_weighs_recall_more():
    first = [known[0] for known in KNOWN]
    expected = chrf_by_hand(TEXTS, first)
    assert expected != pytest.approx(chrf_by_hand(first, TEXTS), abs=1e-4)
    assert zoopt.get_objective("chrf")(TEXTS, first) == pytest.approx(expected)


def test_chrf_takes_each_texts_best_reference():
    chrf = zoopt.get_objective("chrf")
    guess, near, far = ["the cat sat", "a dog"], ["the cat sits", "a dog!"], ["mat", "some town"]
    both = [[far[0], near[0]], [near[1], far[1]]]
    assert chrf(guess, both) == pytest.approx(chrf(guess, near))
    assert chrf(guess, near) > chrf(guess, far)


@pytest.mark.parametrize("name", NEED_TEXTS)
def test_a_text_that_equals_a_reference_is_perfect_and_one_that_shares_nothing_worth_nothing(name):
    metric = zoopt.get_objective(name)
    text, other = "cats sat on mats", "xyz uvw"
    assert metric([text], [text]) == 1.0
    assert metric([text, text], [[other, text], text]) == 1.0
    assert metric([other], [text]) == 0.0
    assert metric([""], [text]) == 0.0


def test_exact_match_sees_case_and_punctuation_and_drops_white_space_around():
    metric = zoopt.get_objective("exact_match")
    guess = [" 5\n", "-5", "Paris", "paris", "a  b"]
    known = ["5", "5", ("Lutetia", "Paris"), "Paris", "a b"]
    assert metric(guess, known) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        ("The  Cat!", "cat", 1.0),
        ("an apple a day", "Apple-day", 0.0),  # appleday is one word
        ("theory", "ory", 0.0),  # an article is a word of its own
        ("U.S.", "us", 1.0),
        ("cat cat dog", "cat", 2 * 1 / 4),  # the second cat is in the reference no more
        ("the", "a", 1.0),  # neither has words
        ("the", "cat", 0.0),
    ],
)
def test_squad_f1_normalizes_as_the_official_script_does(text, reference, score):
    assert zoopt.get_objective("squad_f1")([text], [reference]) == pytest.approx(score)


def test_words_and_repetition_match_their_definitions():
    expected = np.mean([1 - len(c) / c.total() for c in (runs(t.split(), 3) for t in TEXTS)])
    loop = ["on and on and on and on"]  # five runs of three, two of them different
    assert zoopt.get_objective("words")(TEXTS, EXAMPLES) == pytest.approx(
        np.mean([t.count(" ") + 1 for t in TEXTS])
    )
    assert zoopt.get_objective("repetition")(TEXTS, EXAMPLES) == pytest.approx(expected)
    assert zoopt.get_objective("repetition")(loop, EXAMPLES[:1]) == pytest.approx(3 / 5)
    assert zoopt.get_objective("repetition")(["no no no", ""], EXAMPLES[:2]) == 0.0


def test_vader_is_the_mean_compound_score():
    # From the word list, sums s of valences make s / √(s² + 15), rounded to four digits.
    valence = {"good": 1.9, "bad": -2.5, "table": 0.0}
    scores = {word: round(s / math.sqrt(s**2 + 15), 4) for word, s in valence.items()}
    metric = zoopt.get_objective("vader")
    for word, score in scores.items():
        assert metric([word], EXAMPLES[:1]) == pytest.approx(score, abs=1e-12)
    assert metric(list(scores), EXAMPLES[:3]) == pytest.approx(np.mean(list(scores.values())))


def reward(name, **arguments):
    return zoopt.get_objective(name, **arguments)


def test_words_may_have_a_target():
    assert reward("words", target=3)(["a", "a b c", "a b c d e"], EXAMPLES[:3]) == 4 / 3


def test_a_format_has_to_match_from_end_to_end():
    answer = reward("format_match", pattern=r"Answer: \d+")
    guess = ["Answer: 42", "Answer: 42.", "So: Answer: 42", "answer: 42"]
    assert answer(guess, EXAMPLES[:4]) == 1 / 4
    loose = reward("format_match", pattern=re.compile(r"answer: .*", re.IGNORECASE | re.DOTALL))
    assert loose([*guess, "answer: 4\n2"], EXAMPLES[:5]) == 4 / 5
    assert reward("format_match(pattern='(?s)A.*')")(["A\nB", "B"], EXAMPLES[:2]) == 1 / 2


def test_keywords_are_whole_words_in_any_case_and_no_patterns():
    liked = reward("keywords", words=["c++", "thank you"])
    guess = ["I like C++.", "c", "cc", "Thank you!", "thank young", "c+++ is c++"]
    assert liked(guess, EXAMPLES[:6]) == pytest.approx(3 / 6)
    assert reward("keywords(words='yes')")(["yes", "y"], EXAMPLES[:2]) == 1 / 2


def test_toxicity_adds_words_of_ones_own_to_a_mild_list():
    guess = ["What an IDIOT!", "idiotically", "shut up.", "Shut it up", "a frump"]
    assert reward("toxicity")(guess, EXAMPLES[:5]) == 2 / 5
    assert reward("toxicity(words=['frump'])")(guess, EXAMPLES[:5]) == 3 / 5
    assert reward("toxicity(words='frump')")(guess, EXAMPLES[:5]) == 3 / 5
    assert not reward("toxicity").higher_is_better
    words = patterns.INSULTS
    assert len(set(words)) == len(words)
    assert all(word == word.lower().strip() for word in words)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "told"),
    [
        ("keywords", {"words": []}, ValueError, "keywords: words is"),
        ("keywords", {"words": ""}, ValueError, r"words is \[''\]; expected at least one"),
        ("keywords", {"words": ["yes", ""]}, ValueError, "none empty"),
        ("keywords", {"words": [3]}, TypeError, "keywords: 3 among words is not a text"),
        ("keywords", {"words": 3}, TypeError, "keywords: words is 3; expected a text, or a list"),
        ("toxicity", {"words": 3}, TypeError, "toxicity: words is 3; expected a text, or a list"),
        ("toxicity", {"words": [""]}, ValueError, r"toxicity: words is \[''\]; expected"),
        ("toxicity", {"words": ["x", ""]}, ValueError, "toxicity: words is"),
        ("format_match", {"pattern": "(a"}, ValueError, r"'\(a' is invalid: missing \)"),
        ("format_match", {"pattern": 3}, TypeError, "pattern=3 is not a regular expression: quote"),
    ],
)
def test_arguments_that_make_no_sense_are_told(name, arguments, error, told):
    with pytest.raises(error, match=told):
        reward(name, **arguments)(["a"], EXAMPLES[:1])


REWARDS = {name: zoopt.get_objective(name).function for name in NEED_TEXTS + NEED_COMPLETIONS} | {
    "format_match": functools.partial(patterns.format_match, pattern="a"),
    "keywords": functools.partial(patterns.keywords, words=["a"]),
    "toxicity": patterns.toxicity,
}


@pytest.mark.parametrize("name", REWARDS)
def test_texts_that_cannot_be_scored_are_refused(name):
    score = REWARDS[name]
    with pytest.raises(ValueError, match="nothing to score"):
        score([], [])
    with pytest.raises(ValueError, match="2 predictions and 1 references"):
        score(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="a single text was given"):
        score("ab", ["a", "b"])
    with pytest.raises(TypeError, match=r"predictions\[1\] is None; expected a text"):
        score(["a", None], ["a", "b"])


@pytest.mark.parametrize("name", NEED_TEXTS)
@pytest.mark.parametrize("reference", [42, None, ["a", 42]])
def test_a_reference_that_is_no_text_is_named(name, reference):
    told = rf"references\[1\] is {re.escape(repr(reference))}; expected a text or a list of texts"
    with pytest.raises(TypeError, match=told):
        REWARDS[name](["a", "b"], ["a", reference])


@pytest.mark.parametrize("name", NEED_TEXTS)
def test_a_text_without_a_reference_is_named(name):
    with pytest.raises(ValueError, match=r"references\[1\] is empty"):
        zoopt.get_objective(name)(["a", "b"], ["a", []])


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("rougeL", "rouge_score.rouge_scorer"),
        ("bleu", "sacrebleu.metrics.bleu"),
        ("chrf", "sacrebleu.metrics.chrf"),
        ("vader", "vaderSentiment.vaderSentiment"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(name, module, monkeypatch):
    texts._rouge_scorer.cache_clear()
    rewards._vader_analyzer.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    wanted = rf'objective \'{name}\' needs {module}: pip install "zoopt-torch\[text\]"'
    with pytest.raises(ImportError, match=wanted):
        zoopt.get_objective(name)(["a"], ["a"])
