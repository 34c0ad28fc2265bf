"""The trajectory: every update in a few bytes, written before it is applied, and repeated at will.

A run's log is a JSON-lines file. Its first line is a header that says what the run started from;
each further line is one :class:`~zoopt.interfaces.StepRecord`, or says that the run was rolled back
and the steps since do not count. Each line ends in a checksum of all lines so far. Losses are
logged, and coefficients follow from them, so a replay runs the same estimator, engine and update
rule on the same numbers and gives the same θ bit for bit, without a single forward pass.
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

FORMAT = 3
"""Version of the log. A reader of a later format reads earlier ones; an earlier one refuses.

2: steps have ``n`` and ``clip``, and there are lines of rollbacks. 3: lines have checksums.
"""

_SUMMED = 3
_SUM = b', "crc32": "%08x"}\n'

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
        checksum: of these lines; None where the log's format has none.
    """

    header: dict[str, Any]
    records: tuple[StepRecord, ...]
    rollbacks: tuple[Rollback, ...]
    size: int
    checksum: int | None


def read(path: Path) -> Log | None:
    """The content of a log, or None where there is no whole header yet. Writes nothing.

    Raises:
        TrajectoryError: a line before the last is damaged, or a later version wrote it.
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
                        f"{where}; without its first line a log is lost"
                    ) from None
                raise TrajectoryError(
                    f"{where}. The lines before it are good: cut the file there, and the run goes "
                    f"on from step {len(records)}."
                ) from None
            size += len(line)
    if header is None:
        return None
    return Log(header, tuple(records), tuple(rollbacks), size, checksum)


class Trajectory:
    """A log being written: a new one, or one that is continued after its last whole line.

    Args:
        path: the file.
        header: what to begin a new log with; None to continue the one that is there.
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
    """An entry's line, and the checksum of all lines with it; none where there was none before."""
    if before is None:
        return text + b"\n", None
    checksum = zlib.crc32(text[:-1], before)
    return text[:-1] + _SUM % checksum, checksum


def _verified(line: bytes, before: int) -> int:
    """The checksum of all lines with this one.

    Raises:
        ValueError: it is not the one that the line has.
    """
    checksum = zlib.crc32(line[: -len(_SUM % 0)], before)
    if not line.endswith(_SUM % checksum):
        raise ValueError("its checksum is of something else than it and the lines before")
    return checksum


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
