"""A run's folder: what is in it, and whether a run may go on in it."""

from __future__ import annotations

import errno
import json
import os
import weakref
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zoopt import checkpoint, trajectory
from zoopt.tasks import Scores

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAY_CHANGE = ("patience", "run_dir", "sinks")
"""Settings that a run which goes on need not keep: no step depends on them."""


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; made if it is not there.
        job: the run's configuration. A folder that holds a run must hold one with the same.

    Raises:
        ValueError: the folder has a run with another configuration; the message has the difference.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self.path = path
        self.trajectory = path / trajectory.FILENAME
        self.snapshot = path / "snapshot.safetensors"
        self.best = path / checkpoint.BEST
        self.model = path / "best"
        self.config = path / "config.yaml"
        path.mkdir(parents=True, exist_ok=True)
        self.release = _locked(self, path)
        try:
            self._same_job(json.loads(json.dumps(job)))
            self.log = trajectory.read(self.trajectory)
            logged = len(self.log.records) if self.log is not None else 0
            self.metrics = Metrics(path / "metrics.jsonl", logged)
        except BaseException:
            self.release()
            raise

    def _same_job(self, job: dict[str, Any]) -> None:
        if self.config.exists():
            held = flat(yaml.safe_load(self.config.read_text(encoding="utf-8")))
            wanted = flat(job)
            lines = [
                f"  {name}: {held.get(name)!r} there, {wanted.get(name)!r} now"
                for name in sorted({*held, *wanted})
                if held.get(name) != wanted.get(name) and name not in _MAY_CHANGE
            ]
            if lines:
                raise ValueError(
                    f"{self.path} holds a run with other settings:\n" + "\n".join(lines) + "\n"
                    "Take the settings back to go on with it, or choose another run_dir."
                )
            return
        text = yaml.safe_dump(job, sort_keys=False, allow_unicode=True)
        beside = self.config.with_name("config.yaml.partial")
        beside.write_text(text, encoding="utf-8")
        checkpoint.into_place(beside, self.config)

    def before(self) -> dict[str, Scores] | None:
        """What the base model's evaluation gave, if it was kept whole."""
        path = self.path / "before.npz"
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file) as kept:
                return dict(kept)
        except (zipfile.BadZipFile, EOFError, ValueError):
            return None

    def keep_before(self, scores: Mapping[str, Scores]) -> None:
        """Keeps the base model's evaluation, which need not be made again then."""
        beside = self.path / "before.partial.npz"
        np.savez(beside, allow_pickle=False, **dict(scores))
        checkpoint.into_place(beside, self.path / "before.npz")


class Metrics:
    """``metrics.jsonl``: a line for each step, and one for each evaluation (with ``"dev"``).

    Args:
        path: the file. A torn last line is cut off.
        logged: steps that the log has. Lines of later ones, which a power cut may leave behind,
            are left out, since those steps will be made again.
    """

    def __init__(self, path: Path, logged: int) -> None:
        self._path = path
        self.entries: list[dict[str, Any]] = []
        if path.exists():
            self.entries = [e for e in entries_of(path) if e["step"] <= logged]
            text = b"".join(map(_line, self.entries))
            if text != path.read_bytes():
                beside = path.with_name(path.name + ".partial")
                beside.write_bytes(text)
                checkpoint.into_place(beside, path)

    def append(self, entry: dict[str, Any]) -> None:
        """Adds a line."""
        with self._path.open("ab") as file:
            file.write(_line(entry))
        self.entries.append(entry)

    @property
    def steps(self) -> dict[int, dict[str, Any]]:
        """The lines of steps, by number of updates after the step."""
        return {entry["step"]: entry for entry in self.entries if "value" in entry}

    @property
    def noise_floor(self) -> float | None:
        """By how much two evaluations of the base model differed; None before they were made."""
        return next((e["noise_floor"] for e in self.entries if "noise_floor" in e), None)

    @property
    def evaluations(self) -> dict[int, float | None]:
        """Development scores (None without development examples), by number of updates."""
        return {entry["step"]: entry["dev"] for entry in self.entries if "dev" in entry}

    @property
    def forward_size(self) -> int | None:
        """The rows in a forward after memory last ran out; None where it never did."""
        return next((e["forward_size"] for e in self.entries[::-1] if "forward_size" in e), None)

    def best_step(self, higher_is_better: bool) -> int | None:
        """The step of the first evaluation that no other beats; without scores the last."""
        best = None
        for step, score in self.evaluations.items():
            held = None if best is None else self.evaluations[best]
            better = score is None or held is None
            if better or (score > held if higher_is_better else score < held):  # type: ignore[operator]
                best = step
        return best


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of ``metrics.jsonl``. Writes nothing."""
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _locked(folder: RunFolder, path: Path) -> Callable[[], Any]:
    """Keeps other processes from writing the run; what it returns, or a process's end, lets go."""
    if fcntl is None:
        return lambda: None
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return lambda: None  # a file system without locks
        raise ValueError(
            f"{path} is being written by another run: wait for its end, or choose another run_dir"
        ) from None
    return weakref.finalize(folder, os.close, held)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with their names joined by dots.

    >>> flat({"steps": 3, "task": {"kind": "head"}})
    {'steps': 3, 'task.kind': 'head'}
    """
    joined: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            joined |= flat(value, f"{prefix}{name}.")
        else:
            joined[prefix + name] = value
    return joined
