"""Merging runs: adds the updates of several runs to the same base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from zoopt import trajectory
from zoopt.optimizer import ZOOptimizer

CAVEAT = (
    "a merged model is the base plus the sum of the runs' updates, each estimated at its own run's "
    "weights: evaluate it before use"
)


def merge(model: torch.nn.Module, runs: Sequence[str | Path]) -> int:
    """Turns base weights into base + Σ_runs (tuned − base), in place, without a forward pass.

    In seed space the update of a run with plain SGD is Σ_t −η_t ĝ_t, which does not depend on the
    order: the result is exactly the sum of the runs' updates, up to rounding. With momentum, Adam
    or weight decay an update depends on θ and on earlier steps, so it cannot be added.

    Each run estimated its updates at its own weights. Runs on similar parts of the data add up to
    one with a larger learning rate; runs that moved far, or in opposite directions, may add up to
    something worse than any of them. Evaluate the result.

    Args:
        model: the base model of all runs, with its weights before tuning. Runs may have tuned
            different parameters of it.
        runs: folders of two or more runs. One that is given twice counts twice.

    Returns:
        The number of updates applied.

    Raises:
        TrajectoryError: another base model, an update rule with state, or weight decay. The weights
            are unchanged.

    Example:
        >>> import tempfile, torch, zoopt
        >>> def rows(sign):
        ...     return [{"x": sign * x, "y": float(x)} for x in (0.5, 1.0, 2.0)]
        >>> def base():
        ...     return torch.nn.Linear(1, 1, bias=False).requires_grad_(True)
        >>> models, folders = [base() for _ in range(3)], []
        >>> for model, sign in zip(models, (1, -1)):
        ...     _ = torch.nn.init.zeros_(model.weight)
        ...     task = zoopt.Regression(
        ...         rows(sign),
        ...         target="y",
        ...         collate=lambda batch: torch.tensor([[row["x"]] for row in batch]),
        ...     )
        ...     folders.append(tempfile.mkdtemp())
        ...     options = {"objective": "mse", "lr": 0.05, "steps": 9, "eval_every": 9}
        ...     _ = zoopt.tune(model, task=task, run_dir=folders[-1], quiet=True, **options)
        >>> merged = models[2]
        >>> _ = torch.nn.init.zeros_(merged.weight)
        >>> zoopt.merge(merged, folders)
        18
        >>> parts = models[0].weight + models[1].weight
        >>> torch.allclose(merged.weight, parts, atol=1e-6)
        True
    """
    if len(runs) < 2:
        raise ValueError(f"merge takes two or more runs, got {len(runs)}")
    logs = []
    for run in runs:
        log = trajectory.read(Path(run) / trajectory.FILENAME)
        if log is None:
            raise trajectory.TrajectoryError(
                f"{run} has no {trajectory.FILENAME}: is it the folder of a run?"
            )
        _check(run, log)
        logs.append(log)
    # All optimizers check θ against their base before the first one moves it.
    optimizers = [_optimizer(model, run, log) for run, log in zip(runs, logs, strict=True)]
    masters: dict[int, torch.Tensor] = {}
    for optimizer, log in zip(optimizers, logs, strict=True):
        # Each optimizer has its own fp32 masters, more precise than the parameters.
        held = {id(slot.tensor): slot.master for slot in optimizer.slots if slot.master is not None}
        for tensor in held.keys() & masters.keys():
            held[tensor].copy_(masters[tensor])
        masters |= held
        with optimizer.chain():
            for record in log.records:
                optimizer.repeat(record)
    return sum(len(log.records) for log in logs)


def _check(run: str | Path, log: trajectory.Log) -> None:
    rule = log.header["update"]["name"]
    if rule != "sgd":
        raise trajectory.TrajectoryError(
            f"{run} was updated by {rule}, whose updates depend on earlier ones and cannot be "
            "added to another run's: only runs with update='sgd' can be merged"
        )
    decaying = next((r for r in log.records if any(r.weight_decay)), None)
    if decaying is not None:
        raise trajectory.TrajectoryError(
            f"{run} has weight_decay={max(decaying.weight_decay):g}, so its updates depend on θ "
            "and cannot be added to another run's: only runs without weight decay can be merged"
        )


def _optimizer(model: torch.nn.Module, run: str | Path, log: trajectory.Log) -> ZOOptimizer:
    try:
        return trajectory.optimizer_for(model, log.header)
    except trajectory.TrajectoryError as error:
        raise trajectory.TrajectoryError(f"{run}: {error}") from None
