"""The trajectory: every update in a few bytes, written before it is applied, and replayable.

A run's log is a JSON-lines file. Its first line is a header that states what the run started from;
each further line is one :class:`~zoopt.interfaces.StepRecord`, or a rollback, which discards the
steps since an earlier one. Each line ends with a checksum of all lines so far. Losses are logged,
and coefficients follow from them, so a replay runs the same estimator, engine and update rule on
the same numbers and gives the same θ bit for bit, without a single forward pass.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoopt.directions.kernel.fused import KERNEL_VERSION
from zoopt.interfaces import StepRecord

FORMAT = 4
"""Version of the log's format. Readers accept earlier formats and refuse later ones.

2: steps have ``n`` and ``clip``, and rollbacks are logged. 3: lines have checksums. 4: steps have
``settled``.
"""

_SUMMED = 3
_SUM = b', "crc32": "%08x"}\n'

FILENAME = "trajectory.jsonl"


class TrajectoryError(RuntimeError):
    """A log cannot be continued or replayed; the message says why."""


@dataclass(frozen=True)
class Rollback:
    """A return of the run to an earlier step.

    Attributes:
        to: the number of updates that remain valid.
        at: the number of updates before the rollback.
        why: the reason.
    """

    to: int
    at: int
    why: str


@dataclass(frozen=True)
class Log:
    """A log's content.

    Attributes:
        header: the first line.
        records: the valid steps, in order.
        rollbacks: the rollbacks, in order.
        size: bytes of the complete lines; anything after them is an incomplete last line.
        checksum: of these lines; None if the log's format has none.
    """

    header: dict[str, Any]
    records: tuple[StepRecord, ...]
    rollbacks: tuple[Rollback, ...]
    size: int
    checksum: int | None


def read(path: Path) -> Log | None:
    """The content of a log, or None if it has no complete header yet. Does not write to it.

    Raises:
        TrajectoryError: a complete line is damaged, or a later version of zoopt wrote the log.
    """
    if not path.exists():
        return None
    header: dict[str, Any] | None = None
    records: list[StepRecord] = []
    rollbacks: list[Rollback] = []
    size, checksum = 0, None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                if header is None:
                    header = _checked(entry, path)
                    checksum = 0 if header["format"] >= _SUMMED else None
                if checksum is not None:
                    checksum = _verified(line, checksum)
                    del entry["crc32"]
                if "rollback" in entry:
                    rollbacks.append(Rollback(**entry["rollback"]))
                    del records[rollbacks[-1].to :]
                elif entry is not header:
                    records.append(_record(entry))
            except (KeyError, TypeError, ValueError) as error:
                where = f"line {number} of {path} is damaged ({error})"
                if number == 1:
                    raise TrajectoryError(
                        f"{where}; a log cannot be read without its first line"
                    ) from None
                raise TrajectoryError(
                    f"{where}. The lines before it are valid: truncate the file there, and the run "
                    f"continues from step {len(records)}."
                ) from None
            size += len(line)
    if header is None:
        return None
    return Log(header, tuple(records), tuple(rollbacks), size, checksum)


class Trajectory:
    """A log being written: a new one, or one that is continued after its last complete line.

    Args:
        path: the file.
        header: first line of a new log; None to continue the existing one.
    """

    def __init__(self, path: Path, header: dict[str, Any] | None = None) -> None:
        log = None if header is not None else read(path)
        self._size = log.size if log is not None else 0
        self._checksum = log.checksum if log is not None else 0
        self._file = path.open("ab" if log is not None else "wb", buffering=0)
        self._file.truncate(self._size)
        if log is None and header is not None:
            self._write(header)
        self.sync()

    def append(self, record: StepRecord) -> None:
        """Writes one step and passes it to the operating system, so that a kill cannot lose it.

        If the disk is full, the log is left unchanged.
        """
        self._write(asdict(record))

    def roll_back(self, rollback: Rollback) -> None:
        """Logs a rollback, which discards the steps since ``rollback.to``."""
        self._write({"rollback": asdict(rollback)})
        self.sync()

    def sync(self) -> None:
        """Syncs the log to disk, so that a power cut cannot lose it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Syncs the log to disk and closes it."""
        try:
            self.sync()
        finally:
            self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        line, checksum = _summed(json.dumps(entry).encode(), self._checksum)
        try:
            rest = line
            while rest:
                rest = rest[self._file.write(rest) :]
            self._size, self._checksum = self._size + len(line), checksum
        except BaseException:
            self._file.truncate(self._size)
            raise


def _summed(text: bytes, before: int | None) -> tuple[bytes, int | None]:
    """An entry's line, and the checksum of all lines up to it; None if the log has no checksums."""
    if before is None:
        return text + b"\n", None
    checksum = zlib.crc32(text[:-1], before)
    return text[:-1] + _SUM % checksum, checksum


def _verified(line: bytes, before: int) -> int:
    """The checksum of all lines up to this one.

    Raises:
        ValueError: it differs from the checksum in the line.
    """
    checksum = zlib.crc32(line[: -len(_SUM % 0)], before)
    if not line.endswith(_SUM % checksum):
        raise ValueError("its checksum does not match this line and the lines before it")
    return checksum


def _checked(header: Any, path: Path) -> dict[str, Any]:
    if not isinstance(header, dict) or "format" not in header:
        raise TrajectoryError(f"{path} is not a zoopt trajectory: its first line is not a header")
    if header["format"] > FORMAT:
        raise TrajectoryError(
            f"{path} has format {header['format']}, but this zoopt reads formats up to {FORMAT}: "
            "upgrade zoopt"
        )
    if header["kernel"] != KERNEL_VERSION:
        raise TrajectoryError(
            f"{path} was made with kernel version {header['kernel']}, but this zoopt has "
            f"{KERNEL_VERSION}: their directions differ, so install the zoopt version that made it"
        )
    return header


def _record(entry: dict[str, Any]) -> StepRecord:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return StepRecord(**fields)
