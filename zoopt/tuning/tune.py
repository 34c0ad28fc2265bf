"""``zoopt.tune``: tunes a model on a task's objective and writes a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from zoopt.objectives.combination import Combination
from zoopt.objectives.comparison import Comparison
from zoopt.objectives.forms import each_of
from zoopt.objectives.resolve import resolve
from zoopt.tasks import Direct, Task
from zoopt.tuning.ending import Result
from zoopt.tuning.session import Session
from zoopt.tuning.settings import Settings, plain, settings_from


def tune(
    model: torch.nn.Module,
    *,
    task: Task | None = None,
    train: Sequence[Any] | None = None,
    dev: Sequence[Any] = (),
    test: Sequence[Any] = (),
    run_dir: str | Path = "runs/run",
    job: Mapping[str, Any] | None = None,
    quiet: bool = False,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> Result:
    """Tunes a model on a task's objective, with forward passes alone.

    Afterwards the model has the weights of the best development score, or the last ones without
    development examples. An interrupted or killed run is resumed by repeating the call with the
    same settings, and ends with the same weights as an uninterrupted one. Ctrl-C stops early and
    still writes the report.

    Args:
        model: any torch module that the task can evaluate.
        task: the examples, and how the model is evaluated on them.
        train: without a task, batches for an objective called as ``(model, batch)``.
        dev: like train, to choose the best checkpoint.
        test: like train, for the report.
        run_dir: folder for everything that the run writes.
        job: extra entries for the recorded configuration; the CLI passes its whole file.
        quiet: disables the progress display.
        callbacks: called at each step and evaluation; functions ``on_step(metrics, step)``, or
            objects with methods of :class:`zoopt.Callback`.
        **settings: the fields of :class:`zoopt.Settings`: objective, estimator, steps, lr, …
            The objective may be a name, or anything that :func:`zoopt.metric` takes.

    Raises:
        TypeError: an unknown setting, no task for an objective that needs one, or a combination of
            functions of the model.
        ValueError: a setting is out of range, or ``run_dir`` holds a run with other settings.

    Example:
        >>> import tempfile, torch, zoopt
        >>> rows = [{"x": float(x), "label": "big" if x > 3 else "small"} for x in range(8)]
        >>> task = zoopt.HeadClassification(
        ...     rows,
        ...     rows,
        ...     rows,
        ...     labels=["small", "big"],
        ...     collate=lambda batch: torch.tensor([[row["x"]] for row in batch]),
        ... )
        >>> model = torch.nn.Linear(1, 2)
        >>> result = zoopt.tune(
        ...     model,
        ...     task=task,
        ...     objective="cross_entropy",
        ...     lr=0.2,
        ...     eps=0.01,
        ...     steps=200,
        ...     batch_size=8,
        ...     run_dir=tempfile.mkdtemp(),
        ...     quiet=True,
        ... )
        >>> result.report.row("accuracy").after.value >= 0.75
        True
    """
    objective = resolve(settings.pop("objective", Settings.objective))
    if task is not None and (train is not None or dev or test):
        raise TypeError(
            "got a task as well as train, dev or test: pass these examples to the task, or omit "
            "the task for an objective called as (model, batch)"
        )
    if objective.of_model is not None and task is None:
        task = Direct(objective.of_model, train, dev, test)
        settings.setdefault("batch_size", 1)
    if task is None and isinstance(objective, Combination) and "model" in each_of(objective.needs):
        raise TypeError(
            f"objective {objective.name!r} combines functions of the model, but a run takes one: "
            "write a function (model, batch) that returns the combination"
        )
    if task is None:
        raise TypeError(
            f"objective {objective.name!r} scores predictions, but there is no task to make them: "
            "pass a task, such as zoopt.HeadClassification(...), or an objective called as "
            "(model, batch)"
        )
    if isinstance(objective, Comparison):
        settings.setdefault("estimator", "dueling")
    chosen = settings_from({**settings, "objective": objective.name})
    where = Path(run_dir)
    return Session(
        model, task, objective, chosen, where, job or plain(chosen), quiet, callbacks
    ).run()
