"""A run's folder: what is in it, and whether a run may go on in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zoopt import checkpoint, trajectory
from zoopt.tasks import Scores


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
        self._same_job(json.loads(json.dumps(job)))
        self.metrics = Metrics(path / "metrics.jsonl")
        self.log = trajectory.read(self.trajectory)

    def _same_job(self, job: dict[str, Any]) -> None:
        if self.config.exists():
            held = _flat(yaml.safe_load(self.config.read_text(encoding="utf-8")))
            wanted = _flat(job)
            lines = [
                f"  {name}: {held.get(name)!r} there, {wanted.get(name)!r} now"
                for name in sorted({*held, *wanted})
                if held.get(name) != wanted.get(name)
            ]
            if lines:
                raise ValueError(
                    f"{self.path} holds a run with other settings:\n" + "\n".join(lines) + "\n"
                    "Take the settings back to go on with it, or choose another run_dir."
                )
            return
        text = yaml.safe_dump(job, sort_keys=False, allow_unicode=True)
        self.config.write_text(text, encoding="utf-8")

    def before(self) -> dict[str, Scores] | None:
        """What the base model's evaluation gave, if it was kept."""
        path = self.path / "before.npz"
        if not path.exists():
            return None
        with np.load(path) as kept:
            return dict(kept)

    def keep_before(self, scores: Mapping[str, Scores]) -> None:
        """Keeps the base model's evaluation, which a resumed run could not repeat."""
        beside = self.path / "before.partial.npz"
        np.savez(beside, allow_pickle=False, **dict(scores))
        beside.rename(self.path / "before.npz")


class Metrics:
    """``metrics.jsonl``: a line for each step, and one for each evaluation (with ``"dev"``)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[dict[str, Any]] = []
        if path.exists():
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                path.write_bytes(whole)
            self.entries = [json.loads(line) for line in whole.splitlines()]

    def append(self, entry: dict[str, Any]) -> None:
        """Adds a line."""
        self.entries.append(entry)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

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


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
