"""A run's folder: what is in it, and whether a run may go on in it."""

from __future__ import annotations

import errno
import json
import os
import weakref
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zoopt import trajectory
from zoopt.optimizer import ZOOptimizer
from zoopt.tasks import Scores
from zoopt.trajectory import checkpoint
from zoopt.tuning.faults.guard import WINDOW
from zoopt.tuning.folder.metrics_file import Metrics

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAY_CHANGE = ("patience", "run_dir", "sinks", "model", "data.train", "data.dev", "data.test")
"""Settings that a run which goes on need not keep.

No step depends on the first; of the others, which may have moved, it is checked what they hold.
"""


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; made if it is not there.
        job: the run's configuration. A folder that holds a run must hold one with the same.
        identity: its examples and task, of which the same is true; see :func:`identity_of`.

    Raises:
        ValueError: the folder has a run of something else; the message has the difference.
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
        path.mkdir(parents=True, exist_ok=True)
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
        """Writes what the run is, or refuses another than there is.

        One that came to no step, and to no trial of a search for rates, gives way: its settings may
        have been what ended it.
        """
        settings = _differences(self.config, yaml.safe_load, job, _MAY_CHANGE)
        data = _differences(self.identity, json.loads, identity)
        if settings or data:
            if (self.log is not None and self.log.records) or (self.path / "auto").exists():
                said = [("with other settings", settings), ("of something else", data)]
                what, lines = next((what, lines) for what, lines in said if lines)
                raise ValueError(
                    f"{self.path} holds a run {what}:\n" + "\n".join(lines) + "\n"
                    "Restore what differs to resume that run, or choose another run_dir."
                )
            self._clear()
        if settings or not self.config.exists():
            text = yaml.safe_dump(job, sort_keys=False, allow_unicode=True)
            checkpoint.write_whole(self.config, text.encode())
        if data or not self.identity.exists():
            checkpoint.write_whole(self.identity, (json.dumps(identity, indent=1) + "\n").encode())

    def _clear(self) -> None:
        """Takes away what a run left that came to nothing."""
        self.log = None
        left = (self.trajectory, self.snapshot, self.earlier, self.best)
        for path in (*left, *(self.path / name for name in ("before.npz", "metrics.jsonl"))):
            path.unlink(missing_ok=True)

    def reread(self) -> None:
        """Takes up a log that was written meanwhile."""
        self.log = trajectory.read(self.trajectory)

    def keep_best(self, optimizer: ZOOptimizer, dev: float | None) -> None:
        """Writes θ as the best so far, with its development score."""
        entry = {"step": optimizer.steps, "dev": dev}
        checkpoint.save(self.best, optimizer, entry, state=False)

    def keep_snapshot(self, optimizer: ZOOptimizer, sound: int, last: bool) -> None:
        """Writes what the run goes on from, unless the log leads there from one a few steps ago.

        One that is sound is kept beside it, and not replaced by one that is not: a run that has to
        go back finds weights from before it got worse, however often it is evaluated.

        Args:
            optimizer: the run's.
            sound: the last step that was certainly sound; see :attr:`Guard.sound`.
            last: whether this is the end.
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


def _differences(
    path: Path,
    read: Callable[[str], Any],
    wanted: Mapping[str, Any],
    but: Collection[str] = (),
) -> list[str]:
    """A line for each setting that is another than what a file holds; none where there is none."""
    if not path.exists():
        return []
    there, now = flat(read(path.read_text(encoding="utf-8"))), flat(wanted)
    return [
        f"  {name}: {there.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted({*there, *now})
        if there.get(name) != now.get(name) and name not in but
    ]


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
