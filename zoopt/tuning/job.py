"""A job: the configuration of a whole run, as ``zoopt tune`` reads it from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from zoopt.tuning.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """The task that the model is tuned on.

    Args:
        kind: "verbalizer" (a causal LM predicts a word per label), "masked" (a masked LM does),
            "multiple_choice" (a causal LM ranks choices by likelihood), "generation" (a causal LM
            or an encoder-decoder generates text), "head" (a classification head), "regression" (one
            output), "similarity" (cosine of two embeddings), or "paper" (a task of the MeZO paper,
            by name).
        name: for "paper", the task, as sst2; its data come from the hub if data.train is empty.
        masked: for "paper", whether the model is a masked LM.
        template: prompt with the data's columns in braces; for "masked", {mask} marks the position
            of the word, for "multiple_choice", {choice} that of the choice, and for "similarity",
            {text} stands for each of the two columns.
        verbalizer: for "verbalizer" and "masked", the word of each label, in the order of the
            classes.
        choices: for "multiple_choice", the column with the list of choices, or a template for each
            label, as {"0": "{choice1}", "1": "{choice2}"}.
        labels: for "head", the labels in the order of the outputs: texts or numbers. YAML reads no
            and yes without quotes as false and true.
        columns: for "similarity", the two columns to compare.
        target: column with the label, value or reference text; optional for "generation".
        max_length: maximum input length in tokens, 0 for the model's; longer inputs are truncated
            at the start.
        forward_size: rows per forward: examples, their choices, or both texts of their pairs.
        max_new_tokens: for "generation", the maximum completion length in tokens.
        decoding: for "generation", further arguments of generate(), as {do_sample: true}.
        stop: for "generation", completions are cut off before this text.
    """

    kind: str = "verbalizer"
    name: str = ""
    masked: bool = False
    template: str = "{text}"
    verbalizer: Mapping[str, str] = field(default_factory=dict)
    choices: str | Mapping[str, str] = "choices"
    labels: tuple[str | int | float | bool, ...] = ()
    columns: tuple[str, ...] = ("sentence1", "sentence2")
    target: str = "label"
    max_length: int = 0
    forward_size: int = 32
    max_new_tokens: int = 64
    decoding: Mapping[str, Any] = field(default_factory=dict)
    stop: str = ""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The data: CSV, JSONL or Parquet files, or data sets of the hub.

    A data set of the hub is owner/name:split, or owner/name/configuration:split.

    Args:
        train: training examples; may be empty for a "paper" task.
        dev: development examples; if empty, they are drawn from train at random, the same ones for
            every seed. Name a file of your own if examples depend on each other, such as sentences
            of one document.
        test: test examples, for the report only.
        dev_size: number of development examples to use or draw; 0 uses all of dev, or draws a tenth
            of train.
        test_size: number of test examples to use; 0 uses all.
    """

    train: str = ""
    dev: str = ""
    test: str = ""
    dev_size: int = 0
    test_size: int = 0


@dataclass(frozen=True, kw_only=True)
class Job(Settings):
    """The configuration of a whole run, as ``zoopt tune`` reads it from a file.

    Args:
        model: a folder or hub name for ``from_pretrained``.
        task: the task that the model is tuned on.
        data: the examples.
        dtype: dtype of the weights.
        run_dir: the run's folder; a run that it already holds is resumed.
    """

    model: str
    task: TaskSettings
    data: DataSettings = field(default_factory=DataSettings)
    dtype: str = "float32"
    run_dir: str = "runs/run"

    def settings(self) -> Settings:
        """The job's tuning settings."""
        return Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})


def job_from(values: Mapping[str, Any]) -> Job:
    """Builds a job from settings as parsed from YAML or a command line."""
    given = _tuples(values)
    given["task"] = TaskSettings(**_tuples(values["task"]))
    given["data"] = DataSettings(**values["data"])
    return Job(**given)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
