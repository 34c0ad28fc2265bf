"""What the model is asked: two questions about movie reviews, and the sentences for each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

import zoopt
from benchmarks import models
from benchmarks.finetune import toy

BANDS = ("terrible", "bad", "okay", "good", "great")


@dataclass(frozen=True)
class Question:
    """A template, and the word for each class.

    Attributes:
        title: what tables call it.
        template: text with a column in braces.
        words: the word for each label, with its space.
        target: the column that holds the label.
        instruction: what a soft prompt begins as.
    """

    title: str
    template: str
    words: dict[str, str]
    target: str
    instruction: str

    def task(self, tokenizer, train, dev=(), kind=zoopt.Verbalizer):
        """The task of the question."""
        return kind(
            train,
            dev,
            tokenizer=tokenizer,
            template=self.template,
            verbalizer=self.words,
            target=self.target,
        )


QUESTIONS = {
    "reviews": Question(
        "reviews, 2 classes",
        "Review: {text}\nSentiment:",
        {"negative": " negative", "positive": " positive"},
        "label",
        "Is this movie review negative or positive?\n",
    ),
    "ratings": Question(
        "reviews, 5 bands",
        "Review: {text}\nThe movie was",
        {band: f" {band}" for band in BANDS},
        "band",
        "Was this movie terrible, bad, okay, good or great?\n",
    ),
}


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        load: the model and its tokenizer, given a dtype.
        read: the sentences of a split: dicts with text, label and rating.
        budget: forward passes of ``BATCH`` sentences that a trial may take.
        seeds: trials that count.
        sizes: sentences of a split that are used; all of one that is not named.
    """

    load: Callable
    read: Callable
    budget: int
    seeds: int
    sizes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def splits(self):
        """The sentences by split, each in one of five bands that the training ratings cut alike."""
        found = {split: self.read(split) for split in ("train", "dev", "test")}
        cuts = np.quantile([row["rating"] for row in found["train"]], (0.2, 0.4, 0.6, 0.8))
        return {
            split: [
                {**row, "band": BANDS[int(np.searchsorted(cuts, row["rating"], side="right"))]}
                for row in rows[: self.sizes.get(split)]
            ]
            for split, rows in found.items()
        }


FULL = Scale(models.smollm2, models.examples, budget=192, seeds=3, sizes={"dev": 200, "test": 1000})
TOY = Scale(
    toy.load, toy.examples, budget=48, seeds=1, sizes=dict.fromkeys(("train", "dev", "test"), 32)
)
