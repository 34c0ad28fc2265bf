"""The tasks of the MeZO paper, for rows with the columns of the hub's data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoopt.support.names import unknown
from zoopt.tasks.base import Task
from zoopt.tasks.examples import Example
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
    """A task of the MeZO paper, with its prompt and label words, for rows of the hub's data set.

        task = zoopt.paper_task("copa", train, dev, test, tokenizer=tokenizer)
        zoopt.tune(model, task=task, objective="cross_entropy", lr=1e-7, run_dir="runs/copa")

    Rows may come from any source, as long as their columns are named as in the data set of the hub
    that ``zoopt.tasks.prompts.SOURCES`` names. Labels are the hub's integers or their names; rows
    labelled −1, which have no label, are left out.

    Args:
        name: the task, such as ``"sst2"``: a key of ``zoopt.tasks.prompts.CAUSAL``, or for masked
            models of ``MASKED``.
        train: training examples.
        dev: examples for choosing the best checkpoint.
        test: examples used only in the report.
        tokenizer: a Hugging Face tokenizer. Each label word must be one token, as with those of
            OPT, GPT-2 and RoBERTa; otherwise the error names the word.
        masked: whether the model is a masked language model rather than a causal one.
        **options: further arguments of the task, such as ``max_length``.

    Raises:
        KeyError: the paper has no such task for this kind of model, or a column is missing.
        ValueError: a label word has several tokens.
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
    """The paper's prompt for a data set.

    Raises:
        KeyError: it has none, or none for this kind of model.
    """
    mine, others = (MASKED, CAUSAL) if masked else (CAUSAL, MASKED)
    if name in mine:
        return mine[name]
    if name in others:
        raise KeyError(
            f"in the paper only {'causal' if masked else 'masked'} language models have the task "
            f"{name!r}: set masked={not masked}"
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
            f"{name!r} needs column {error} of {source.hub}, but the example has "
            f"{', '.join(map(repr, row))}"
        ) from None
