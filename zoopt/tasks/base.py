"""The base class of tasks, which turn examples into model inputs, predictions and references."""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoopt.probes.forward_only import forward_only
from zoopt.probes.population import Population
from zoopt.tasks.anchors import Anchors
from zoopt.tasks.examples import Example, held, missing
from zoopt.tasks.grouping import beginning, grouped
from zoopt.tasks.text import TextInputs

Scores = NDArray[Any]
"""A model's outputs for N examples: class logits (N, classes), values (N,), or texts (N,)."""


class Task(ABC):
    """Examples, and how a model is evaluated on them.

    Args:
        train: examples that minibatches are drawn from, in another order in each epoch. Iterables
            that cannot be indexed are read into a list first.
        dev: examples for choosing the best checkpoint.
        test: examples used only in the report.
        target: the column that holds the reference.
        batch_size: maximum rows in one forward; most tasks have one row per example.
    """

    gives: str = "values"
    """The kind of its predictions, a key of :data:`zoopt.tasks.objective.TAKEN`."""

    loads: str = "AutoModelForSequenceClassification"
    """The Auto class of transformers that loads a suitable model."""

    labels: tuple[str, ...] = ()
    """Names of the classes in the order of the logits; empty if there are none."""

    metric: str = ""
    """The objective that the task is usually reported with; empty if there is none."""

    padding_costs: bool = True
    """Whether a forward's cost grows with its tokens, so that padding is wasted work."""

    def __init__(
        self,
        train: Sequence[Example],
        dev: Sequence[Example] = (),
        test: Sequence[Example] = (),
        *,
        target: str = "label",
        batch_size: int = 32,
    ) -> None:
        train, dev, test = held(train), held(dev), held(test)
        if not train:
            raise ValueError("the task has no training examples: train is empty")
        for name, split in (("train", train), ("dev", dev), ("test", test)):
            if split and target and target not in split[0]:
                raise KeyError(
                    f"the {name} examples have no column {target!r}; they have "
                    f"{', '.join(map(repr, split[0]))}. Name the column with target=..."
                )
        self.train, self.dev, self.test = train, dev, test
        self.target = target
        self.batch_size = batch_size
        self._anchors = Anchors()

    def rows(self, example: Example) -> Sequence[Example]:
        """The rows of a forward for an example: here one, the example itself."""
        return (example,)

    @abstractmethod
    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """One forward: a row of output for each row (here given as ``examples``)."""

    def said(self, out: torch.Tensor, population: Population) -> Scores:
        """Scores of K probes, shape (K, R, …), from the output of one forward of K · R rows."""
        exact = out.to(torch.promote_types(out.dtype, torch.float32))
        return population.per_probe(exact).cpu().numpy().astype(np.float64)

    def joined(self, said: Scores, examples: Sequence[Example]) -> Scores:
        """Scores of K probes on N examples, shape (K, N, …), from the scores of their rows."""
        return said

    def length(self, example: Example) -> int:
        """The length of a row's input; rows of similar length share a forward."""
        return 0

    def label(self, example: Example, index: int) -> str:
        """The name of a class index."""
        return self.labels[index]

    def references(self, examples: Sequence[Example]) -> NDArray[Any]:
        """Class indices or target values, shape (N,).

        Raises:
            KeyError: the column has no value.
            ValueError: the value is not one of the labels, or not a number.
        """
        given = [self.given(example) for example in examples]
        if not self.labels:
            return np.asarray([_number(value, self.target) for value in given])
        index = {label: i for i, label in enumerate(self.labels)}
        try:
            return np.asarray([index[str(value)] for value in given])
        except KeyError as error:
            booleans = {"True", "False"} & {error.args[0], *self.labels}
            hint = ". YAML reads yes and no as True and False: put them in quotes"
            raise ValueError(
                f"{error.args[0]!r} in column {self.target!r} is not among the labels "
                f"{', '.join(map(repr, self.labels))}{hint if booleans else ''}"
            ) from None

    def given(self, example: Example) -> Any:
        """What the target column holds.

        Raises:
            KeyError: the example has no such column, or no value in it.
        """
        value = example.get(self.target)
        if missing(value):
            raise KeyError(
                f"there is no value in column {self.target!r} of the example "
                f"{reprlib.repr(dict(example))}: leave the example out, or put a value there"
            )
        return value

    def check(self, example: Example) -> None:
        """Raises an error if the example lacks a text or a reference, or has an unknown label."""
        self.references([example])
        inputs = getattr(self, "inputs", None)
        if isinstance(inputs, TextInputs):
            for row in self.rows(example):
                inputs.render(row)

    def clusters(self, examples: Sequence[Example]) -> NDArray[Any] | None:
        """Each example's group of dependent examples, numbered from 0, shape (N,); None if none."""
        return None

    def anchor(self, model: torch.nn.Module, *splits: Sequence[Example]) -> None:
        """Stores a base model's outputs on these examples, for objectives that use them."""
        for split in splits:
            if split:
                self._anchors.keep(split, self.predict(model, split))

    def anchored(self, examples: Sequence[Example]) -> Scores:
        """The anchored model's outputs on these examples.

        Args:
            examples: a sequence that was given to :meth:`anchor`, or :class:`Drawn` from one.

        Raises:
            ValueError: one of them was not among those given to :meth:`anchor`.
        """
        return self._anchors.of(examples)

    def asked(self, examples: Sequence[Example]) -> NDArray[Any]:
        """The examples with the rendered prompt, as reward functions take them."""
        raise TypeError(
            f"{type(self).__name__} generates no texts for a reward: use a Generation task"
        )

    def predict(
        self,
        model: torch.nn.Module,
        examples: Sequence[Example],
        advance: Callable[[int], None] | None = None,
    ) -> Scores:
        """The model's scores in the order of the examples, computed from the shortest first.

        Args:
            model: the model to evaluate.
            examples: N of them.
            advance: called after each forward with the number of examples that it completed.
        """
        scores: Scores = self.predict_each(model, examples, Population(1), advance)[0]
        return scores

    def predict_each(
        self,
        model: torch.nn.Module,
        examples: Sequence[Example],
        population: Population,
        advance: Callable[[int], None] | None = None,
    ) -> Scores:
        """Scores of K probes on the examples, shape (K, N, …); see :meth:`predict`."""
        rows = [row for example in examples for row in self.rows(example)]
        lengths = [self.length(row) for row in rows]
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        columns: dict[int, Scores] = {}
        for group in self._groups(model, [lengths[i] for i in order], population.remade):
            part = order[group]
            population.declare(len(part) * population.size)
            with forward_only():
                out = self.forward(model, [rows[i] for i in part] * population.size)
            said = self.said(out, population).swapaxes(0, 1)
            for i, column in zip(part, said, strict=True):
                columns[i] = column
            if advance is not None:
                ends = group.start, group.stop
                before, after = (n * len(examples) // len(rows) for n in ends)
                advance(after - before)
        if not columns:
            return np.zeros((population.size, 0))
        return self.joined(np.stack([columns[i] for i in range(len(rows))], axis=1), examples)

    def _groups(self, model: torch.nn.Module, lengths: Sequence[int], remade: int) -> list[slice]:
        """The rows of each forward of one probe; a population's forward has them for each probe."""
        costly = self.padding_costs and any(lengths)
        return grouped(lengths, self.batch_size, beginning(model, remade) if costly else math.inf)


def _number(value: Any, column: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{value!r} in column {column!r} is not a number, as the target of a regression"
        ) from None
