"""The data splits of a run, and the order in which minibatches are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoopt.seeds import fold
from zoopt.tasks import Drawn, Example, Task
from zoopt.tuning.files import read_examples
from zoopt.tuning.job import DataSettings

_BUCKET = 16
_SPLIT = 0
"""The seed of the draw of development examples."""


def read_splits(data: DataSettings) -> dict[str, list[dict[str, Any]]]:
    """Reads the train, dev and test examples and checks that the splits are disjoint.

    Raises:
        ValueError: an example occurs in two splits, or ``data.train`` is empty.
    """
    if not data.train:
        raise ValueError("data.train is empty: name a file or data set with training examples")
    splits = {
        name: read_examples(source) if source else []
        for name, source in (("train", data.train), ("dev", data.dev), ("test", data.test))
    }
    if not splits["dev"]:
        size = data.dev_size or max(1, len(splits["train"]) // 10)
        if size >= len(splits["train"]):
            raise ValueError(
                f"data.train has {len(splits['train'])} example(s), of which {size} would be taken "
                "for development: provide more training examples, or set data.dev"
            )
        splits["train"], splits["dev"] = _drawn_off(splits["train"], size)
    for name, size in (("dev", data.dev_size), ("test", data.test_size)):
        splits[name] = splits[name][: size or None]
    seen: dict[str, str] = {}
    for name, examples in splits.items():
        for example in examples:
            key = _content(example)
            if seen.setdefault(key, name) != name:
                raise ValueError(
                    f"an example is in both {seen[key]} and {name}, which would bias the result: "
                    f"{example}"
                )
    return splits


def check_examples(task: Task) -> None:
    """Checks all examples of a task, so that a run does not end at one it first meets late.

    Of a split that is not a list, and may build its examples on access, only the first.

    Raises:
        KeyError: an example lacks a text or a reference; the message has its split and index.
        ValueError: a label is unknown, or a value is not a number.
        TypeError: an example is of another kind than the task takes.
    """
    for name in ("train", "dev", "test"):
        split = getattr(task, name)
        lazy = not isinstance(split, list | tuple)
        for place in range(min(1, len(split)) if lazy else len(split)):
            try:
                task.check(split[place])
            except (KeyError, ValueError, TypeError) as error:
                kind = next(k for k in (KeyError, ValueError, TypeError) if isinstance(error, k))
                said = error.args[0] if error.args else error
                raise kind(f"{name} example {place}: {said}") from error


def _drawn_off(
    examples: list[dict[str, Any]], size: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training and development examples, drawn at random; equal examples stay on one side.

    The draw is the same for all runs, whatever their seed, so that their scores are comparable.

    Args:
        examples: the examples; both parts keep their order.
        size: number of development examples, or slightly fewer because of equal ones.

    Raises:
        ValueError: there are too many equal examples.
    """
    equal: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        equal.setdefault(_content(example), []).append(place)
    groups, drawn = list(equal.values()), set[int]()
    for i in np.random.default_rng(_SPLIT).permutation(len(groups)):
        if len(drawn) + len(groups[i]) <= size:
            drawn.update(groups[i])
    if not drawn:
        raise ValueError(
            f"data.train has {len(examples)} examples but only {len(groups)} different ones, each "
            f"more than {size} times, so that none can be taken for development: set data.dev, or "
            "a larger data.dev_size"
        )
    train = [example for place, example in enumerate(examples) if place not in drawn]
    return train, [examples[place] for place in sorted(drawn)]


def _content(example: Example) -> str:
    """A text that is the same for examples with the same content."""
    return repr(sorted((name, str(value)) for name, value in example.items()))


class Batches:
    """Minibatches as a pure function of the step, so that a resumed run draws the same ones.

    Each epoch is a permutation. Within every 16 consecutive batches, examples are sorted by length
    so that each batch holds examples of similar length, which saves padding.

    Args:
        task: provides the training examples and their lengths.
        size: examples per batch; all of them if there are fewer.
        seed: seed of the permutations.
    """

    def __init__(self, task: Task, size: int, seed: int) -> None:
        self._train: Sequence[Example] = task.train
        self._task = task
        self._size = min(size, len(task.train))
        self._seed = seed
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def __call__(self, *steps: int) -> Drawn:
        """Returns the examples of a step, or of several together."""
        return Drawn(self._train, [place for step in steps for place in self._places(step)])

    def _places(self, step: int) -> list[int]:
        epoch, place = divmod(step, len(self._train) // self._size)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._deal(epoch)
        return self._epoch[1][place]

    def _deal(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng(fold(self._seed, epoch))
        order = rng.permutation(len(self._train)).tolist()
        order = order[: len(order) // self._size * self._size]
        batches: list[list[int]] = []
        for start in range(0, len(order), self._size * _BUCKET):
            part = order[start : start + self._size * _BUCKET]
            part.sort(key=self._length)
            batches += [part[i : i + self._size] for i in range(0, len(part), self._size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _length(self, i: int) -> int:
        return max(map(self._task.length, self._task.rows(self._train[i])))
