"""A run's folder: its files, and whether a run can be resumed in it."""

from __future__ import annotations

import errno
import json
import logging
import os
import weakref
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from zoopt import trajectory
from zoopt.optimizer import ZOOptimizer
from zoopt.tasks import Scores
from zoopt.trajectory import checkpoint
from zoopt.tuning.faults.guard import WINDOW
from zoopt.tuning.folder.callables import is_code
from zoopt.tuning.folder.metrics_file import Metrics

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("zoopt")

_MAY_CHANGE = ("patience", "run_dir", "sinks", "model", "data.train", "data.dev", "data.test")
"""Settings that may change when a run is resumed.

No step depends on patience, run_dir or sinks. The model and data may have moved; their contents
are checked instead.
"""


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; created if missing.
        job: the run's configuration; must equal that of a run already in the folder.
        identity: its examples, task and objective, which must be equal too; see
            :func:`identity_of`. Other code of their functions is only warned of.

    Raises:
        ValueError: the folder holds a different run; the message lists the differences.
        NotADirectoryError: the path is that of a file.
        TrajectoryError: its log or its metrics are damaged.
    """

    def __init__(
        self, path: Path, job: Mapping[str, Any], identity: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.trajectory = path / trajectory.FILENAME
        self.snapshot = path / "snapshot.safetensors"
        self.earlier = path / "snapshot.earlier.safetensors"
        self.best = path / checkpoint.BEST
        self.model = path / "best"
        self.config = path / "config.yaml"
        self.identity = path / "identity.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(
                f"run_dir {path} cannot be a folder, since it or a folder above it is a file: "
                "choose another run_dir"
            ) from None
        self.release = _locked(self, path)
        try:
            self.log = trajectory.read(self.trajectory)
            self._same_run(json.loads(json.dumps(job)), json.loads(json.dumps(identity or {})))
            logged = len(self.log.records) if self.log is not None else 0
            self.metrics = Metrics(path / "metrics.jsonl", logged)
        except BaseException:
            self.release()
            raise

    def _same_run(self, job: dict[str, Any], identity: dict[str, Any]) -> None:
        """Writes the run's configuration and identity, or refuses a folder with a different run.

        A previous run without any step or trial of a search for rates is overwritten: its settings
        may have been what ended it.
        """
        settings = _differences(self.config, yaml.safe_load, job, _MAY_CHANGE)
        recorded = self._recorded(identity)
        data = _differences(self.identity, json.loads, recorded)
        code, data = [d for d in data if is_code(d.name)], [d for d in data if not is_code(d.name)]
        if settings or data:
            if (self.log is not None and self.log.records) or (self.path / "auto").exists():
                said = [("with other settings", settings), ("of something else", data)]
                what, found = next((what, found) for what, found in said if found)
                raise ValueError(
                    f"{self.path} holds a run {what}:\n{_lines(found)}\n"
                    "Restore what differs to resume that run, or choose another run_dir."
                )
            self._clear()
        elif code := [d for d in code if None not in (d.there, d.now)]:
            log.warning(
                "%s holds a run that began with other code:\n%s\nIt is resumed. If the code now "
                "computes something else, choose another run_dir.",
                self.path,
                _lines(code),
            )
        if settings or not self.config.exists():
            text = yaml.safe_dump(job, sort_keys=False, allow_unicode=True)
            checkpoint.write_whole(self.config, text.encode())
        if settings or data or recorded != identity or not self.identity.exists():
            checkpoint.write_whole(self.identity, (json.dumps(identity, indent=1) + "\n").encode())

    def _recorded(self, identity: dict[str, Any]) -> dict[str, Any]:
        """The parts of an identity that the folder's file has, which an earlier version may lack.

        All of them if there is no file.
        """
        if not self.identity.exists():
            return identity
        there = json.loads(self.identity.read_text(encoding="utf-8"))
        return {name: part for name, part in identity.items() if name in there}

    def _clear(self) -> None:
        """Deletes the files of a previous run that made no step."""
        self.log = None
        left = (self.trajectory, self.snapshot, self.earlier, self.best)
        for path in (*left, *(self.path / name for name in ("before.npz", "metrics.jsonl"))):
            path.unlink(missing_ok=True)

    def reread(self) -> None:
        """Reads the log again after it was changed."""
        self.log = trajectory.read(self.trajectory)

    def keep_best(self, optimizer: ZOOptimizer, dev: float | None) -> None:
        """Writes θ as the best so far, with its development score."""
        entry = {"step": optimizer.steps, "dev": dev}
        checkpoint.save(self.best, optimizer, entry, state=False)

    def keep_snapshot(self, optimizer: ZOOptimizer, sound: int, last: bool) -> None:
        """Writes the snapshot for resuming, unless the last one is only a few steps old.

        The last sound snapshot is kept as ``earlier`` until a newer sound one replaces it, so that
        a rollback finds weights from before the divergence, however often the run is evaluated.

        Args:
            optimizer: the run's optimizer.
            sound: the last step that was certainly sound; see :attr:`Guard.sound`.
            last: whether this is the end of the run.
        """
        held = checkpoint.step_of(self.snapshot, -1)
        keeps = 0 <= held <= sound
        if not (keeps or last) and held >= 0 and optimizer.steps < held + 2 * WINDOW:
            return
        new = self.path / "snapshot.new.safetensors"
        checkpoint.save(new, optimizer, {})
        if keeps:
            self.snapshot.replace(self.earlier)
        new.replace(self.snapshot)

    def before(self) -> dict[str, Scores] | None:
        """Reads the base model's stored scores; None if missing or damaged."""
        path = self.path / "before.npz"
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file) as kept:
                return dict(kept)
        except (zipfile.BadZipFile, EOFError, ValueError):
            return None

    def keep_before(self, scores: Mapping[str, Scores]) -> None:
        """Stores the base model's scores, so that a resumed run need not compute them again."""
        beside = self.path / "before.partial.npz"
        np.savez(beside, allow_pickle=False, **dict(scores))
        checkpoint.into_place(beside, self.path / "before.npz")


class _Difference(NamedTuple):
    """What a file has under a flat name, and what is given; None for nothing."""

    name: str
    there: Any
    now: Any


def _lines(differences: Sequence[_Difference]) -> str:
    return "\n".join(f"  {name}: {there!r} there, {now!r} now" for name, there, now in differences)


def _differences(
    path: Path,
    read: Callable[[str], Any],
    wanted: Mapping[str, Any],
    but: Collection[str] = (),
) -> list[_Difference]:
    """The settings that differ from the file's; none if there is no file."""
    if not path.exists():
        return []
    there, now = flat(read(path.read_text(encoding="utf-8"))), flat(wanted)
    return [
        _Difference(name, there.get(name), now.get(name))
        for name in sorted({*there, *now})
        if there.get(name) != now.get(name) and name not in but
    ]


def _locked(folder: RunFolder, path: Path) -> Callable[[], Any]:
    """Locks the run against other processes; returns the function that unlocks it."""
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
            f"{path} is being written by another run: wait for it to end, or choose another run_dir"
        ) from None
    return weakref.finalize(folder, os.close, held)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested settings, joining their names with dots.

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
