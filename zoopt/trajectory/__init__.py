"""The trajectory: every update in a few bytes, logged before it is applied, and replayable."""

from zoopt.trajectory.header import check_base, header_of, optimizer_for
from zoopt.trajectory.log import FILENAME, Log, Rollback, Trajectory, TrajectoryError, read
from zoopt.trajectory.replay import replay

__all__ = [
    "FILENAME",
    "Log",
    "Rollback",
    "Trajectory",
    "TrajectoryError",
    "check_base",
    "header_of",
    "optimizer_for",
    "read",
    "replay",
]
