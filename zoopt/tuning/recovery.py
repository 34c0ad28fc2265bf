"""θ from a run's checkpoints and log: which of them can be used, and what is lost without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zoopt import checkpoint, trajectory
from zoopt.optimizer import ZOOptimizer
from zoopt.tuning.folder import RunFolder

_NONE = -1


def usable_snapshot(
    folder: RunFolder, higher_is_better: bool, warn: Callable[[str], None]
) -> tuple[Path | None, int]:
    """Where a run that is started again goes on from.

    A checkpoint that is cut off, or of steps that the log does not have (a power cut may lose the
    end of one file and not of another), costs a replay of the log from the base model.

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
    if not folder.snapshot.exists():
        return None, _NONE
    if not 0 <= checkpoint.step_of(folder.snapshot, _NONE) <= available:
        warn(f"{folder.snapshot} is damaged: the log is repeated from the base model")
        return None, _NONE
    return folder.snapshot, _NONE


def rebuild(folder: RunFolder, optimizer: ZOOptimizer) -> None:
    """Brings θ to where the log says it is, bit for bit, from the last checkpoint before.

    A step that failed leaves the in-place engine's θ within rounding of what it was, which no log
    records. Called within :meth:`ZOOptimizer.chain`, the next step shares a pass as it would have.

    Raises:
        TrajectoryError: no checkpoint is there to begin from.
    """
    log = trajectory.read(folder.trajectory)
    records = log.records if log is not None else ()
    # At step 0 no rule has any state yet, which is all that the best checkpoint lacks.
    for path, usable in ((folder.snapshot, len(records)), (folder.best, 0)):
        if checkpoint.step_of(path, default=usable + 1) <= usable:
            checkpoint.load(path, optimizer)
            for record in records[optimizer.steps :]:
                optimizer.repeat(record)
            return
    raise trajectory.TrajectoryError(
        f"{folder.path} has no checkpoint that θ could be made from again: start the run once more "
        "with the base model, and it goes on from its log"
    )
