"""θ from a run's checkpoints and log, in the process that is running it."""

from __future__ import annotations

from zoopt import checkpoint, trajectory
from zoopt.optimizer import ZOOptimizer
from zoopt.tuning.folder import RunFolder


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
