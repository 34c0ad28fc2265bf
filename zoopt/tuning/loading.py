"""Loads the model and makes the task that a job describes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from zoopt.support.names import unknown
from zoopt.tasks import TASKS, Task, paper, prompts
from zoopt.tasks.head import name_outputs
from zoopt.tuning import pretrained
from zoopt.tuning.data import read_splits
from zoopt.tuning.job import DataSettings, Job, TaskSettings

_ANY = ("kind", "max_length", "forward_size")
"""Settings that apply to all kinds of task."""

_TAKEN: dict[str, tuple[str, ...]] = {
    "verbalizer": ("template", "target", "verbalizer"),
    "masked": ("template", "target", "verbalizer"),
    "multiple_choice": ("template", "target", "choices"),
    "generation": ("template", "target", "max_new_tokens", "decoding", "stop"),
    "head": ("template", "target", "labels"),
    "regression": ("template", "target"),
    "similarity": ("template", "target", "columns"),
    "paper": ("name", "masked"),
}
"""Further settings of each kind, named as its arguments."""


def load_model(job: Job, name: str | None = None) -> tuple[torch.nn.Module, Any]:
    """Loads the job's model, or the one in another folder, and its tokenizer."""
    _check(job.task)
    asked = TASKS.get(job.task.kind) or paper.prompt(job.task.name, job.task.masked).task
    labels = tuple(map(str, job.task.labels))
    loaded = pretrained.load(name or job.model, asked.loads, job.dtype, labels)
    if labels:
        name_outputs(loaded[0], labels)
    return loaded


def make_task(job: Job, tokenizer: Any) -> Task:
    """Builds the job's task over the job's data."""
    settings = job.task
    _check(settings)
    splits = read_splits(_data(job))
    options = {name: getattr(settings, name) for name in _TAKEN[settings.kind]}
    if settings.kind == "generation" and settings.target not in splits["train"][0]:
        options["target"] = ""
    make: Any = TASKS.get(settings.kind, paper.paper_task)
    task: Task = make(
        **splits,
        **options,
        tokenizer=tokenizer,
        max_length=settings.max_length or None,
        batch_size=settings.forward_size,
    )
    return task


def _check(settings: TaskSettings) -> None:
    """Raises if the kind is unknown, or a setting does not apply to it."""
    if settings.kind not in _TAKEN:
        raise KeyError(unknown("task", settings.kind, _TAKEN))
    taken = (*_ANY, *_TAKEN[settings.kind])
    for name in (field.name for field in fields(TaskSettings) if field.name not in taken):
        if getattr(settings, name) != getattr(TaskSettings(), name):
            raise ValueError(
                f"task.{name} does not apply to a task of kind {settings.kind!r}, which takes "
                f"{', '.join(taken[1:])}"
            )
    if settings.kind == "head" and len(settings.labels) < 2:
        raise ValueError(
            f"task.labels is {list(settings.labels)}: name the classes in the order of the model's "
            'outputs, as labels: ["negative", "positive"]'
        )


def _data(job: Job) -> DataSettings:
    """The job's data settings; a task of the paper defaults to its data set on the hub."""
    if job.task.kind != "paper" or job.data.train:
        return job.data
    source = prompts.SOURCES[job.task.name]
    test = job.data.test or f"{source.hub}:{source.held_out}"
    return replace(job.data, train=f"{source.hub}:train", test=test)
