"""The trajectory: every update in a few bytes, written before it is applied, and repeated at will.

A run's log is a JSON-lines file. Its first line is a header that says what the run started from;
each further line is one :class:`~zoopt.interfaces.StepRecord`, or says that the run was rolled back
and the steps since do not count. Losses are logged, and coefficients follow from them, so a replay
runs the same estimator, engine and update rule on the same numbers and gives the same θ bit for
bit, without a single forward pass.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoopt.directions.kernel.fused import KERNEL_VERSION
from zoopt.interfaces import StepRecord

FORMAT = 2
"""Version of the log. A reader of a later format reads earlier ones; an earlier one refuses.

2: steps have ``n`` and ``clip``, and there are lines of rollbacks.
"""

FILENAME = "trajectory.jsonl"


class TrajectoryError(RuntimeError):
    """A log that cannot be continued or replayed, and why."""


@dataclass(frozen=True)
class Rollback:
    """A run went back to an earlier step.

    Attributes:
        to: the number of updates that still count.
        at: the number of updates when it went back.
        why: what had happened.
    """

    to: int
    at: int
    why: str


@dataclass(frozen=True)
class Log:
    """A log's content.

    Attributes:
        header: the first line.
        records: the steps that count, in order.
        rollbacks: the times that the run was rolled back, in order.
        size: bytes of the whole lines; anything after them is a torn last line.
    """

    header: dict[str, Any]
    records: tuple[StepRecord, ...]
    rollbacks: tuple[Rollback, ...]
    size: int


def read(path: Path) -> Log | None:
    """The content of a log, or None where there is no whole header yet. Writes nothing.

    Raises:
        TrajectoryError: a line before the last is damaged, or a later version wrote it.
    """
    if not path.exists():
        return None
    entries, size = [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                raise TrajectoryError(
                    f"line {number + 1} of {path} is damaged ({error}). The lines before it are "
                    f"good: cut the file there, and the run goes on from step {number - 1}."
                ) from None
            size += len(line)
    if not entries:
        return None
    header = _checked(entries[0], path)
    records: list[StepRecord] = []
    rollbacks: list[Rollback] = []
    for entry in entries[1:]:
        if "rollback" in entry:
            rollbacks.append(Rollback(**entry["rollback"]))
            del records[rollbacks[-1].to :]
        else:
            records.append(_record(entry))
    return Log(header, tuple(records), tuple(rollbacks), size)


class Trajectory:
    """A log being written: a new one, or one that is continued after its last whole line.

    Args:
        path: the file.
        header: what to begin a new log with; None to continue the one that is there.
    """

    def __init__(self, path: Path, header: dict[str, Any] | None = None) -> None:
        log = None if header is not None else read(path)
        self._size = log.size if log is not None else 0
        self._file = path.open("ab" if log is not None else "wb", buffering=0)
        self._file.truncate(self._size)
        if log is None and header is not None:
            self._write(header)
        self.sync()

    def append(self, record: StepRecord) -> None:
        """Writes one step and hands it to the operating system, where a kill cannot lose it.

        Where the disk is full, the log is left as it was.
        """
        self._write(asdict(record))

    def roll_back(self, rollback: Rollback) -> None:
        """Writes that the steps since ``rollback.to`` do not count."""
        self._write({"rollback": asdict(rollback)})
        self.sync()

    def sync(self) -> None:
        """Forces the log to disk, where a power cut cannot lose it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Forces the log to disk and closes it."""
        try:
            self.sync()
        finally:
            self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        try:
            rest = line
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            self._file.truncate(self._size)
            raise
        self._size += len(line)


def _checked(header: Any, path: Path) -> dict[str, Any]:
    if not isinstance(header, dict) or "format" not in header:
        raise TrajectoryError(f"{path} is not a zoopt trajectory: its first line is not a header")
    if header["format"] > FORMAT:
        raise TrajectoryError(
            f"{path} has format {header['format']}, this zoopt reads up to {FORMAT}: upgrade zoopt"
        )
    if header["kernel"] != KERNEL_VERSION:
        raise TrajectoryError(
            f"{path} was made with kernel version {header['kernel']}, this zoopt has "
            f"{KERNEL_VERSION}: their directions differ, so install the zoopt that made it"
        )
    return header


def _record(entry: dict[str, Any]) -> StepRecord:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return StepRecord(**fields)
