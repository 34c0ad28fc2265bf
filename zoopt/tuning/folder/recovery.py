"""Rebuilds θ from a run's checkpoints and log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from zoopt import trajectory
from zoopt.optimizer import ZOOptimizer
from zoopt.trajectory import checkpoint
from zoopt.tuning.folder.run_folder import RunFolder

_NONE = -1


def usable_snapshot(
    folder: RunFolder, higher_is_better: bool, warn: Callable[[str], None]
) -> tuple[Path | None, int]:
    """Returns the snapshot from which a run is resumed.

    If a checkpoint is truncated, or of a step that the log does not have (a power cut may lose the
    end of either file), the log is replayed from the checkpoint before it, or from the base model.

    Args:
        folder: the run's folder.
        higher_is_better: whether higher development scores are better.
        warn: called with a message about each damaged file.

    Returns:
        The snapshot, or None to start from the base model; and the step at which the best
        checkpoint must be written again, or -1.
    """
    if folder.log is None:
        return None, _NONE
    available = len(folder.log.records)
    best = folder.metrics.best_step(higher_is_better)
    if best is not None:
        held = checkpoint.step_of(folder.best, _NONE)
        # A run killed within an evaluation may have written its checkpoint and not yet its score.
        unscored = best < held <= available and held not in folder.metrics.evaluations
        if held != best and not unscored:
            warn(
                f"{folder.best} is damaged: replaying the log from the base model to write the "
                f"best checkpoint (step {best}) again"
            )
            return None, best
    for path in (folder.snapshot, folder.earlier):
        if 0 <= checkpoint.step_of(path, _NONE) <= available:
            return path, _NONE
        if path.exists():
            warn(f"{path} is damaged: replaying the log from an earlier step")
    return None, _NONE


def rebuild(
    log: Path,
    checkpoints: Sequence[Path],
    optimizer: ZOOptimizer,
    passing: Callable[[int], None] = lambda step: None,
) -> None:
    """Restores θ bit for bit to the end of the log, from the latest usable checkpoint.

    This is needed after a failed step: with the in-place engine it leaves rounding errors in θ,
    which no log records. Within :meth:`ZOOptimizer.chain`, the next step shares a pass as usual.

    Args:
        log: the run's trajectory.
        checkpoints: files that may exist, with the update rule's state.
        optimizer: the run's optimizer.
        passing: called with the number of updates of θ at each step on the way.

    Raises:
        TrajectoryError: there is no usable checkpoint.
    """
    held = trajectory.read(log)
    records = held.records if held is not None else ()
    steps = {path: checkpoint.step_of(path, default=len(records) + 1) for path in checkpoints}
    usable = [path for path, step in steps.items() if step <= len(records)]
    if not usable:
        raise trajectory.TrajectoryError(
            f"{log.parent} has no checkpoint from which θ could be rebuilt: start the run again "
            "with the base model to resume it from its log"
        )
    checkpoint.load(max(usable, key=steps.__getitem__), optimizer)
    passing(optimizer.steps)
    for record in records[optimizer.steps :]:
        optimizer.repeat(record)
        passing(optimizer.steps)
