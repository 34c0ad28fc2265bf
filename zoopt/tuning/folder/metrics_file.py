"""``metrics.jsonl``: a line for each step and each evaluation of a run, and for events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoopt import trajectory
from zoopt.trajectory import checkpoint
from zoopt.tuning.folder.course import Course


class Metrics(Course):
    """The course of a run in its file, and the lines of it.

    Args:
        path: the file. An incomplete last line is removed.
        logged: number of steps in the log. Lines of later steps, which a power cut may leave
            behind, are dropped, since those steps will be repeated.

    Attributes:
        entries: all lines, with those of steps rolled back.
    """

    def __init__(self, path: Path, logged: int) -> None:
        super().__init__()
        self._path = path
        self.entries: list[dict[str, Any]] = []
        if path.exists():
            for entry in entries_of(path):
                if entry["step"] <= logged:
                    self._take(entry)
            text = b"".join(map(_line, self.entries))
            if text != path.read_bytes():
                checkpoint.write_whole(path, text)

    def append(self, entry: dict[str, Any]) -> None:
        """Adds a line."""
        with self._path.open("ab") as file:
            file.write(_line(entry))
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        self.follow(entry)

    def last(self, name: str) -> Any:
        """Returns the entry's value in the last line that has it; None if no line does."""
        return next((entry[name] for entry in self.entries[::-1] if name in entry), None)


def entries_of(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of ``metrics.jsonl``, ignoring an incomplete last one. Writes nothing.

    Raises:
        TrajectoryError: a complete line is damaged.
    """
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1].split(b"\n")[:-1]
    return [_entry(line, number, path) for number, line in enumerate(whole, start=1)]


def _entry(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        entry: Any = json.loads(line)
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            raise ValueError("expected an object with an integer step")
    except ValueError as error:
        raise trajectory.TrajectoryError(
            f"line {number} of {path} is damaged ({error}). No step is lost, since the log has "
            "them all: delete this line, and snapshot*.safetensors from the same folder. Started "
            "again with the base model, the run replays its log and repeats the evaluation that "
            "the line may have held."
        ) from None
    return entry


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"
