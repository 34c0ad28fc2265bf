"""θ from a run's checkpoints and log: which of them can be used, and what is lost without."""

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
    """Where a run that is started again goes on from.

    A checkpoint that is cut off, or of steps that the log does not have (a power cut may lose the
    end of one file and not of another), costs a replay of the log from the one before it, or from
    the base model.

    Args:
        folder: the run's.
        higher_is_better: which development scores are better.
        warn: is told what is damaged.

    Returns:
        The snapshot, None to begin with the base model; and the step at which the best checkpoint
        has to be written again, or -1.
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
                f"{folder.best} is damaged: the log is repeated from the base model, and the best "
                f"checkpoint (step {best}) written again"
            )
            return None, best
    for path in (folder.snapshot, folder.earlier):
        if 0 <= checkpoint.step_of(path, _NONE) <= available:
            return path, _NONE
        if path.exists():
            warn(f"{path} is damaged: the log is repeated from an earlier place")
    return None, _NONE


def rebuild(
    log: Path,
    checkpoints: Sequence[Path],
    optimizer: ZOOptimizer,
    passing: Callable[[int], None] = lambda step: None,
) -> None:
    """Brings θ to where the log says it is, bit for bit, from the latest checkpoint before that.

    A step that failed leaves the in-place engine's θ within rounding of what it was, which no log
    records. Called within :meth:`ZOOptimizer.chain`, the next step shares a pass as it would have.

    Args:
        log: the run's trajectory.
        checkpoints: files that may be there, with the update rule's state.
        optimizer: the run's.
        passing: told of each number of updates that θ has on the way.

    Raises:
        TrajectoryError: no checkpoint is there to begin from.
    """
    held = trajectory.read(log)
    records = held.records if held is not None else ()
    steps = {path: checkpoint.step_of(path, default=len(records) + 1) for path in checkpoints}
    usable = [path for path, step in steps.items() if step <= len(records)]
    if not usable:
        raise trajectory.TrajectoryError(
            f"{log.parent} has no checkpoint that θ could be made from again: start the run once "
            "more with the base model, and it goes on from its log"
        )
    checkpoint.load(max(usable, key=steps.__getitem__), optimizer)
    passing(optimizer.steps)
    for record in records[optimizer.steps :]:
        optimizer.repeat(record)
        passing(optimizer.steps)
