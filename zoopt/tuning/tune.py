"""``zoopt.tune``: a model, a task and an objective in; a tuned model and a report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from zoopt.objectives.comparison import Comparison
from zoopt.objectives.resolve import resolve
from zoopt.tasks import Direct, Task
from zoopt.tuning.loop import Result, Tuner
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

    The model ends with the weights of the best development score, or the last ones if there are no
    development examples. An interrupted or killed run is resumed by the same call with the same
    settings, and ends with the weights it would have had. Ctrl-C stops early and still writes the
    report.

    Args:
        model: any torch module that the task can evaluate.
        task: the examples, and how the model is evaluated on them.
        train: without a task, batches for an objective called as ``(model, batch)``.
        dev: as train, to choose the best checkpoint.
        test: as train, for the report.
        run_dir: folder for everything that the run writes.
        job: extra entries for the recorded configuration; the CLI passes its whole file.
        quiet: no progress display.
        callbacks: called at each step and evaluation; functions ``on_step(metrics, step)``, or
            objects as :class:`zoopt.Callback` describes them.
        **settings: the fields of :class:`zoopt.Settings`: objective, estimator, steps, lr, …
            The objective may be a name, or anything that :func:`zoopt.metric` takes.

    Raises:
        TypeError: an unknown setting, or no task for an objective that needs one.
        ValueError: a setting out of range, or a run with other settings in ``run_dir``.

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
            "the task has its own examples: give train, dev and test to it, or leave the task out "
            "for an objective called as (model, batch)"
        )
    if objective.of_model is not None and task is None:
        task = Direct(objective.of_model, train, dev, test)
        settings.setdefault("batch_size", 1)
    if task is None:
        raise TypeError(
            f"objective {objective.name!r} scores predictions, and there is no task to make them: "
            "give task=zoopt.HeadClassification(...) or another, or an objective called as "
            "(model, batch)"
        )
    if isinstance(objective, Comparison):
        settings.setdefault("estimator", "dueling")
    chosen = settings_from({**settings, "objective": objective.name})
    where = Path(run_dir)
    return Tuner(
        model, task, objective, chosen, where, job or plain(chosen), quiet, callbacks
    ).run()
