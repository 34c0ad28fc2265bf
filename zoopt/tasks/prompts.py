"""The data sets, prompts and label words of the MeZO paper, as tables.

Causal models get the prompts of OPT, masked models those of RoBERTa, which are LM-BFF's (Malladi et
al. 2023, arXiv 2305.17333, appendix E; Gao et al. 2021, arXiv 2012.15723). The paper scores options
by log-probability, even if they are single words; a verbalizer's logits differ from these by the
same number for all words.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoopt.tasks.base import Task
from zoopt.tasks.choice import MultipleChoice
from zoopt.tasks.examples import Example
from zoopt.tasks.generation import Generation
from zoopt.tasks.masked import MaskedVerbalizer
from zoopt.tasks.verbalizer import Verbalizer

Columns = Callable[[Example], Example]
"""Makes the columns that a template needs from those of the hub's data set."""


@dataclass(frozen=True)
class Source:
    """A data set of the hub.

    Attributes:
        hub: owner, name and optionally configuration, as ``zoopt tune`` takes them.
        labels: names of its integer labels, in order.
        held_out: the split for reporting; the labels of test splits are usually not public.
        target: the column that holds the label.
        metric: the objective that results are reported with.
    """

    hub: str
    labels: tuple[str, ...] = ()
    held_out: str = "validation"
    target: str = "label"
    metric: str = "accuracy"


@dataclass(frozen=True)
class Prompt:
    """A prompt for a data set.

    Attributes:
        task: the kind of task.
        template: its template.
        options: its other arguments.
        columns: makes further columns of a row first.
    """

    task: type[Task]
    template: str
    options: Mapping[str, Any] = field(default_factory=dict)
    columns: Columns = lambda row: {}


def _boolq(row: Example) -> Example:
    question = row["question"].removesuffix("?") + "?"
    return {"question": question[:1].upper() + question[1:]}


def _wsc(row: Example) -> Example:
    return {"span2_text": row["span2_text"].lower()}


def _copa(row: Example) -> Example:
    """The premise without its full stop, followed by a conjunction, which the choices continue."""
    conjunction = "so" if row["question"] == "effect" else "because"
    return {
        "premise": f"{row['premise'].removesuffix('.')} {conjunction}",
        **{name: _continued(row[name]) for name in ("choice1", "choice2")},
    }


def _continued(sentence: str) -> str:
    first, space, rest = sentence.partition(" ")
    return (first if first == "I" else first.lower()) + space + rest


def _record(row: Example) -> Example:
    """The query with each entity inserted; the right entities are wordings of one choice."""
    choices: dict[str | None, list[str]] = {}
    for entity in dict.fromkeys([*row["entities"], *row["answers"]]):
        choice = None if entity in row["answers"] else entity
        choices.setdefault(choice, []).append(row["query"].replace("@placeholder", entity))
    return {
        "passage": row["passage"].replace("@highlight\n", "- "),
        "choices": list(choices.values()),
        "answers": list(choices).index(None),
    }


def _squad(row: Example) -> Example:
    return {"answers": list(row["answers"]["text"])}


def _drop(row: Example) -> Example:
    return {"answers_spans": list(row["answers_spans"]["spans"])}


def _pair(row: Example, first: str = "premise", second: str = "hypothesis") -> Example:
    """The first text without final punctuation, the second with a lower-case first letter."""
    return {
        first: row[first].rstrip(".?!"),
        second: row[second][:1].lower() + row[second][1:],
    }


_GLUE, _SUPER_GLUE = "nyu-mll/glue/", "aps/super_glue/"
_NLI = ("entailment", "neutral", "contradiction")
_ENTAILED = ("entailment", "not_entailment")
_TRUTH = ("False", "True")
_MOOD = ("negative", "positive")

SOURCES: dict[str, Source] = {
    "sst2": Source(_GLUE + "sst2", _MOOD),
    "rte": Source(_SUPER_GLUE + "rte", _ENTAILED),
    "cb": Source(_SUPER_GLUE + "cb", ("entailment", "contradiction", "neutral")),
    "boolq": Source("google/boolq", _TRUTH, target="answer"),
    "wsc": Source(_SUPER_GLUE + "wsc.fixed", _TRUTH),
    "wic": Source(_SUPER_GLUE + "wic", _TRUTH),
    "multirc": Source(_SUPER_GLUE + "multirc", _TRUTH),
    "copa": Source(_SUPER_GLUE + "copa", ("0", "1")),
    "record": Source(_SUPER_GLUE + "record", target="answers"),
    "squad": Source("rajpurkar/squad", target="answers", metric="squad_f1"),
    "drop": Source("ucinlp/drop", target="answers_spans", metric="squad_f1"),
    "sst5": Source("SetFit/sst5", held_out="test", target="label_text"),
    "mr": Source("cornell-movie-review-data/rotten_tomatoes", _MOOD, held_out="test"),
    "cr": Source("SetFit/CR", held_out="test", target="label_text"),
    "mnli": Source(_GLUE + "mnli", _NLI, held_out="validation_matched"),
    "snli": Source("stanfordnlp/snli", _NLI, held_out="test"),
    "qnli": Source(_GLUE + "qnli", _ENTAILED),
    "trec": Source("SetFit/TREC-QC", held_out="test", target="label_coarse_original"),
    "cola": Source(_GLUE + "cola", ("unacceptable", "acceptable"), metric="mcc"),
    "subj": Source("SetFit/subj", held_out="test", target="label_text"),
}
"""Data sets with the examples, by task."""


_SENTIMENT = {"verbalizer": {"negative": " terrible", "positive": " great"}}
_IS_TRUE = {"verbalizer": {"False": "No", "True": "Yes"}}
_ENTAILS = {"verbalizer": {"not_entailment": "No", "entailment": "Yes"}}
_ENTAILS_MASKED = {"verbalizer": {"not_entailment": " No", "entailment": " Yes"}}
_NLI_MASKED = {"verbalizer": {"contradiction": " No", "neutral": " Maybe", "entailment": " Yes"}}
_ANSWER = {"max_new_tokens": 50, "stop": "\n"}

CAUSAL: dict[str, Prompt] = {
    "sst2": Prompt(Verbalizer, "{sentence} It was", _SENTIMENT),
    "rte": Prompt(
        Verbalizer, '{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n', _ENTAILS
    ),
    "cb": Prompt(
        Verbalizer,
        'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n',
        {"verbalizer": {"contradiction": "No", "neutral": "Maybe", "entailment": "Yes"}},
    ),
    "boolq": Prompt(Verbalizer, "{passage} {question}\n", _IS_TRUE, _boolq),
    "wsc": Prompt(
        Verbalizer,
        '{text}\nIn the previous sentence, does the pronoun "{span2_text}" refer to {span1_text}? '
        "Yes or No?\n",
        _IS_TRUE,
        _wsc,
    ),
    "wic": Prompt(
        Verbalizer,
        'Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n'
        "{sentence1}\n{sentence2}\n",
        _IS_TRUE,
    ),
    "multirc": Prompt(
        Verbalizer,
        '{paragraph}\nQuestion: {question}\nI found this answer "{answer}". Is that correct? '
        "Yes or No?\n",
        _IS_TRUE,
    ),
    "copa": Prompt(
        MultipleChoice,
        "{premise} {choice}",
        {"choices": {"0": "{choice1}", "1": "{choice2}"}},
        _copa,
    ),
    "record": Prompt(MultipleChoice, "{passage}\n- {choice}", {}, _record),
    "squad": Prompt(
        Generation,
        "Title: {title}\nContext: {context}\nQuestion: {question}\nAnswer:",
        _ANSWER,
        _squad,
    ),
    "drop": Prompt(Generation, "Passage: {passage}\nQuestion: {question}\nAnswer:", _ANSWER, _drop),
}
"""The paper's prompts for causal language models, by task."""

MASKED: dict[str, Prompt] = {
    "sst2": Prompt(MaskedVerbalizer, "{sentence} It was {mask}.", _SENTIMENT),
    "sst5": Prompt(
        MaskedVerbalizer,
        "{text} It was {mask}.",
        {
            "verbalizer": {
                "very negative": " terrible",
                "negative": " bad",
                "neutral": " okay",
                "positive": " good",
                "very positive": " great",
            }
        },
    ),
    "mr": Prompt(MaskedVerbalizer, "{text} It was {mask}.", _SENTIMENT),
    "cr": Prompt(MaskedVerbalizer, "{text} It was {mask}.", _SENTIMENT),
    "mnli": Prompt(MaskedVerbalizer, "{premise}? {mask}, {hypothesis}", _NLI_MASKED, _pair),
    "snli": Prompt(MaskedVerbalizer, "{premise}? {mask}, {hypothesis}", _NLI_MASKED, _pair),
    "rte": Prompt(MaskedVerbalizer, "{premise}? {mask}, {hypothesis}", _ENTAILS_MASKED, _pair),
    "qnli": Prompt(
        MaskedVerbalizer,
        "{question}? {mask}, {sentence}",
        _ENTAILS_MASKED,
        functools.partial(_pair, first="question", second="sentence"),
    ),
    "trec": Prompt(
        MaskedVerbalizer,
        "{mask}: {text}",
        {
            "verbalizer": {
                "DESC": " Description",
                "ENTY": " Entity",
                "ABBR": " Expression",
                "HUM": " Human",
                "LOC": " Location",
                "NUM": " Number",
            }
        },
    ),
    "cola": Prompt(
        MaskedVerbalizer,
        "{sentence} This is {mask}.",
        {"verbalizer": {"unacceptable": " incorrect", "acceptable": " correct"}},
    ),
    "subj": Prompt(
        MaskedVerbalizer,
        "{text} This is {mask}.",
        {"verbalizer": {"subjective": " subjective", "objective": " objective"}},
    ),
}
"""The paper's prompts for masked language models, by task."""
