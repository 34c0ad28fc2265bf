"""From a job's settings to a model and a task."""

from __future__ import annotations

from typing import Any

import torch

from zoopt.integrations import transformers
from zoopt.registry import unknown
from zoopt.tasks import TASKS, Generation, HeadClassification, Regression, Task, Verbalizer
from zoopt.tuning.data import read_splits
from zoopt.tuning.settings import Job


def load_model(job: Job, name: str | None = None) -> tuple[torch.nn.Module, Any]:
    """The job's model, or another folder's, and its tokenizer."""
    labels = len(job.task.labels) if job.task.kind == "head" else 1
    return transformers.load(name or job.model, job.task.kind, job.dtype, labels)


def make_task(job: Job, tokenizer: Any) -> Task:
    """The job's task over the job's data."""
    settings = job.task
    if settings.kind not in TASKS:
        raise ValueError(unknown("task", settings.kind, TASKS))
    splits = read_splits(job.data)
    generating = settings.kind == "generation"
    target = settings.target
    if generating and target not in splits["train"][0]:
        target = ""
    common: dict[str, Any] = {
        **splits,
        "tokenizer": tokenizer,
        "template": settings.template,
        "target": target,
        "max_length": settings.max_length or None,
        "batch_size": settings.forward_size,
    }
    if generating:
        options = {name: getattr(settings, name) for name in ("max_new_tokens", "decoding", "stop")}
        return Generation(**common, **options)
    if settings.kind == "verbalizer":
        if len(settings.verbalizer) < 2:
            raise ValueError(
                "a verbalizer task needs a word for each of two labels or more, for example "
                'verbalizer: {negative: " terrible", positive: " great"}'
            )
        return Verbalizer(**common, verbalizer=settings.verbalizer)
    if settings.kind == "head":
        if len(settings.labels) < 2:
            raise ValueError("a head task needs labels, for example labels: [negative, positive]")
        return HeadClassification(**common, labels=settings.labels)
    return Regression(**common)
