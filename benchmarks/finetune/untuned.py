"""Rows whose model stays as it is: they choose thresholds, demonstrations or a linear layer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import zoopt
from benchmarks.finetune.prepended import Demonstrated
from benchmarks.finetune.scoring import BATCH
from zoopt.tasks.text import device_of
from zoopt.tuning.report.calibration import class_offsets

CALIBRATING = 400
STRENGTHS = (1e-4, 1e-2, 1.0)


@dataclass
class Prepared:
    """What says the classes of sentences.

    Attributes:
        predict: sentences to class scores, shape (N, classes).
        forwards: forward passes of ``BATCH`` sentences that it took to make it.
        setting: what was chosen on the development sentences, if anything.
    """

    predict: Callable
    forwards: int = 0
    setting: str = ""


@dataclass(frozen=True)
class Untuned:
    """A row.

    Attributes:
        title: what tables call it.
        prepare: (model, tokenizer, question, splits, budget, generator) to :class:`Prepared`.
        seeds: trials that count, at most.
    """

    title: str
    prepare: Callable
    seeds: int = 1000


def zero_shot(model, tokenizer, question, splits, budget, drawn):
    """The model's own words."""
    task = question.task(tokenizer, splits["train"])
    return Prepared(lambda rows: task.predict(model, rows))


def calibrated(model, tokenizer, question, splits, budget, drawn):
    """The same with an offset for each class that suits some training sentences best."""
    task = question.task(tokenizer, splits["train"])
    chosen = sample(splits["train"], min(CALIBRATING, BATCH * budget), drawn)
    offsets = class_offsets(task.predict(model, chosen), task.references(chosen))
    return Prepared(lambda rows: task.predict(model, rows) + offsets, len(chosen) // BATCH)


def in_context(count):
    """Training sentences with their words before the one that is asked about."""

    def prepare(model, tokenizer, question, splits, budget, drawn):
        task = question.task(tokenizer, splits["train"])
        chosen = sample(splits["train"], count, drawn)
        demonstrated = Demonstrated(model, demonstrations(task, tokenizer, chosen))
        return Prepared(lambda rows: task.predict(demonstrated, rows))

    return prepare


def demonstrations(task, tokenizer, chosen):
    """Their tokens: a filled template, its word and a blank line each."""
    blank = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    words = [task.word_ids[label] for label in task.references(chosen)]
    shown = zip(chosen, words, strict=True)
    return [token for row, word in shown for token in (*task.inputs.ids(row), word, *blank)]


class States(zoopt.Verbalizer):
    """Gives the last hidden state at the place where the word would come."""

    def forward(self, model, examples):
        """Shape (N, width)."""
        inputs = self.inputs.batch(examples, device_of(model), "left")
        return model.model(**inputs, use_cache=False).last_hidden_state[:, -1]


def linear_probe(model, tokenizer, question, splits, budget, drawn):
    """Logistic regression on hidden states of as many sentences as the budget has forwards for."""
    task = question.task(tokenizer, splits["train"], kind=States)
    chosen = sample(splits["train"], min(BATCH * budget, len(splits["train"])), drawn)
    states, labels = task.predict(model, chosen), task.references(chosen)
    held, truth = task.predict(model, splits["dev"]), task.references(splits["dev"])
    fitted = {
        strength: make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, max_iter=2000)
        ).fit(states, labels)
        for strength in STRENGTHS
    }
    best = max(STRENGTHS, key=lambda strength: fitted[strength].score(held, truth))
    return Prepared(
        lambda rows: fitted[best].predict_log_proba(task.predict(model, rows)),
        len(chosen) // BATCH,
        f"C {best:g}",
    )


def sample(rows, count, drawn):
    """Some of the rows, each at most once."""
    return [rows[i] for i in torch.randperm(len(rows), generator=drawn)[:count].tolist()]


UNTUNED = {
    "zero-shot": Untuned("zero-shot", zero_shot, seeds=1),
    "calibrated": Untuned("zero-shot, calibrated", calibrated),
    "icl-4": Untuned("in-context learning, k = 4", in_context(4)),
    "icl-16": Untuned("in-context learning, k = 16", in_context(16)),
    "linear-probe": Untuned("linear probing", linear_probe),
}
