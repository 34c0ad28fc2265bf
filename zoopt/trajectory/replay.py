"""Replay: recomputes tuned weights from base weights and a log, without a forward pass."""

from __future__ import annotations

from pathlib import Path

import torch

from zoopt.trajectory import checkpoint
from zoopt.trajectory.header import optimizer_for
from zoopt.trajectory.log import FILENAME, TrajectoryError, read


def replay(model: torch.nn.Module, run_dir: str | Path, step: int | str = "last") -> int:
    """Turns base weights into a run's tuned weights, in place, without a forward pass.

    On the same backend the result is the run's own θ bit for bit.

    Args:
        model: the base model, with its weights from before tuning.
        run_dir: the run's folder.
        step: number of updates to apply: a number, ``"last"``, or ``"best"`` by development score.

    Returns:
        The number of updates applied.

    Raises:
        TrajectoryError: the base model differs, a later version wrote the log, or it lacks the
            step.
    """
    log = read(Path(run_dir) / FILENAME)
    if log is None:
        raise TrajectoryError(f"{run_dir} has no {FILENAME}: is it the folder of a run?")
    wanted = _wanted(step, Path(run_dir), len(log.records))
    optimizer = optimizer_for(model, log.header)
    with optimizer.chain():
        for record in log.records[:wanted]:
            optimizer.repeat(record)
    return wanted


def _wanted(step: int | str, run_dir: Path, available: int) -> int:
    if step == "best":
        best = run_dir / checkpoint.BEST
        if not best.exists():
            raise TrajectoryError(
                f"{run_dir} has no {best.name}, because the run was never evaluated: use a number "
                "or 'last'"
            )
        step = int(checkpoint.facts(best)["step"])
    elif step == "last":
        step = available
    if not isinstance(step, int):
        raise TrajectoryError(f"step={step!r} is not a number, 'last' or 'best'")
    if not 0 <= step <= available:
        raise TrajectoryError(f"step {step} is not in the log, which has steps 0 to {available}")
    return step
