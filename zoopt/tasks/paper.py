"""The tasks of MeZO's paper, made of rows as the hub has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoopt.support.names import unknown
from zoopt.tasks.base import Example, Task
from zoopt.tasks.prompts import CAUSAL, MASKED, SOURCES, Prompt, Source


def paper_task(
    name: str,
    train: Sequence[Example],
    dev: Sequence[Example] = (),
    test: Sequence[Example] = (),
    *,
    tokenizer: Any,
    masked: bool = False,
    **options: Any,
) -> Task:
    """A task of MeZO's paper, with its prompt and label words, over rows as the hub has them.

        task = zoopt.paper_task("copa", train, dev, test, tokenizer=tokenizer)
        zoopt.tune(model, task=task, objective="cross_entropy", lr=1e-7, run_dir="runs/copa")

    Rows may come from anywhere, as long as their columns are called as in the data set of the hub
    that ``zoopt.tasks.prompts.SOURCES`` names. Labels are the hub's integers or their names; rows
    labelled −1, which have no label, are left out.

    Args:
        name: which one, such as ``"sst2"``: a key of ``zoopt.tasks.prompts.CAUSAL``, or for masked
            models of ``MASKED``.
        train: training examples.
        dev: examples that choose the best checkpoint.
        test: examples that only the report looks at.
        tokenizer: a Hugging Face tokenizer. It must have each label word as one token, as those of
            OPT, GPT-2 and RoBERTa do; where it has not, the error says which word.
        masked: whether the model is a masked one rather than a causal one.
        **options: further arguments of the task, such as ``max_length``.

    Raises:
        KeyError: the paper has no such task for this kind of model, or a column is missing.
        ValueError: a label word is several tokens.
    """
    asked, source = prompt(name, masked), SOURCES[name]

    def rows(split: Sequence[Example]) -> list[Example]:
        return [
            _row(name, source, asked, row) for row in split if str(row.get(source.target)) != "-1"
        ]

    given = {"template": asked.template, "target": source.target, **asked.options, **options}
    make: Any = asked.task
    task: Task = make(rows(train), rows(dev), rows(test), tokenizer=tokenizer, **given)
    task.metric = source.metric
    return task


def prompt(name: str, masked: bool) -> Prompt:
    """How the paper asks a model about a data set.

    Raises:
        KeyError: it does not, or not this kind of model.
    """
    mine, others = (MASKED, CAUSAL) if masked else (CAUSAL, MASKED)
    if name in mine:
        return mine[name]
    if name in others:
        raise KeyError(
            f"the paper asks {'causal' if masked else 'masked'} language models about {name!r}: "
            f"set masked={not masked}"
        )
    raise KeyError(unknown("task of the paper", name, mine))


def _row(name: str, source: Source, asked: Prompt, row: Example) -> Example:
    row = {key: value.strip() if isinstance(value, str) else value for key, value in row.items()}
    if row.get(source.target) in range(len(source.labels)):
        row[source.target] = source.labels[int(row[source.target])]
    try:
        return {**row, **asked.columns(row)}
    except KeyError as error:
        raise KeyError(
            f"{name!r} wants column {error} of {source.hub}, but the example has "
            f"{', '.join(map(repr, row))}"
        ) from None
