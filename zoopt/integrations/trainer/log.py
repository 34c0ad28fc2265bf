"""The log of a Trainer's run next to its checkpoints, and the divergence guard that reads it.

Each checkpoint stores the log's size at that time and its SHA-256. A run resumed from the
checkpoint truncates the log to that size.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState, TrainingArguments

from zoopt import trajectory
from zoopt.optimizer import ZOOptimizer
from zoopt.trajectory import checkpoint
from zoopt.trajectory.header import IDENTITY
from zoopt.tuning.faults.guard import Guard
from zoopt.tuning.settings import Settings

log = logging.getLogger("zoopt")

MARK = "trajectory.mark.json"
_IN_RECORDS = ("eps", "n")
"""Estimator options that are stored in each record."""


class RunLog:
    """Writes ``trajectory.jsonl`` while a Trainer trains, and monitors it for divergence.

    Without a log (earlier steps were not logged, the optimizer has its own recorder, or during a
    hyperparameter search) the guard only warns and does not clip, since a resumed run could not
    reproduce the clipping.

    Args:
        cuts: whether the optimizer's coefficients are clipped as in :func:`zoopt.tune`.
    """

    def __init__(self, cuts: bool) -> None:
        self._cuts = cuts
        self._log: trajectory.Trajectory | None = None
        self._path = Path()
        self._told = False
        self._guard = Guard(0.0)

    def begin(
        self,
        optimizer: ZOOptimizer,
        model: torch.nn.Module | None,
        args: TrainingArguments,
        state: TrainerState,
        resumed: str | None,
    ) -> None:
        """Opens the log: a new one, or that of the resumed checkpoint."""
        self._told = False
        self._path = Path(str(args.output_dir)) / trajectory.FILENAME
        self._guard = Guard(Settings.clip_ratio, maximize=optimizer.maximize)
        if self._cuts:
            optimizer.clip = None
        if optimizer.recorder is not None or state.is_hyper_param_search:
            return
        new = optimizer.steps == 0 and state.global_step == 0
        header = trajectory.header_of(optimizer, model)
        try:
            if not new:
                self._take_up(optimizer, header, resumed)
            elif (self._path.parent / "config.yaml").exists():
                raise trajectory.TrajectoryError("the folder holds a run of zoopt.tune")
        except trajectory.TrajectoryError as error:
            log.warning("%s is not written: %s", self._path, error)
            return
        self._log = trajectory.Trajectory(self._path, header if new else None)
        optimizer.recorder = self._log.append

    def _take_up(self, optimizer: ZOOptimizer, header: dict[str, Any], resumed: str | None) -> None:
        """Truncates the log to the checkpoint's size, and replays it to the guard."""
        if resumed is None:
            raise trajectory.TrajectoryError(
                f"training continues at step {optimizer.steps}, but not from a checkpoint"
            )
        beside = Path(resumed).parent / trajectory.FILENAME
        try:
            mark = json.loads((Path(resumed) / MARK).read_text(encoding="utf-8"))
            text = beside.read_bytes()[: mark["size"]]
        except (OSError, ValueError):
            raise trajectory.TrajectoryError(
                f"{resumed} has no {MARK}, or no {beside.name} next to it"
            ) from None
        if hashlib.sha256(text).hexdigest() != mark["sha256"]:
            raise trajectory.TrajectoryError(
                f"{beside} belongs to another run than {resumed}, or its beginning has changed"
            )
        cut = self._path.with_name(self._path.name + ".partial")
        cut.write_bytes(text)
        try:
            held = trajectory.read(cut)
            _check(held, optimizer, header)
        except trajectory.TrajectoryError:
            cut.unlink()
            raise
        assert held is not None
        checkpoint.into_place(cut, self._path)
        self._guard.follow(held.records, 0, optimizer.estimator)

    def before(self, optimizer: ZOOptimizer) -> None:
        """Called before a step is estimated."""
        if self._cuts and self._log is not None:
            optimizer.clip = self._guard.bound

    def after(self, optimizer: ZOOptimizer) -> None:
        """Called after a step was estimated."""
        self._guard.see(optimizer.estimated)
        trouble = "" if self._told else self._guard.trouble()
        if trouble:
            self._told = True
            log.warning(
                "step %d: %s, far worse than in the first steps. The learning rate is %g: "
                "go back to a checkpoint, and train with a tenth of learning_rate",
                optimizer.steps,
                trouble,
                optimizer.param_groups[0]["lr"],
            )

    def mark(self, folder: Path) -> None:
        """Writes the log's size and hash to a checkpoint."""
        if self._log is None:
            return
        self._log.sync()
        text = self._path.read_bytes()
        entry = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        (folder / MARK).write_text(json.dumps(entry), encoding="utf-8")

    def close(self, optimizer: ZOOptimizer) -> None:
        """Closes the log."""
        if self._log is not None:
            self._log.close()
            self._log = optimizer.recorder = None


def _check(held: trajectory.Log | None, optimizer: ZOOptimizer, header: dict[str, Any]) -> None:
    """Raises TrajectoryError if an optimizer's next step cannot be appended to a log."""
    if held is None or len(held.records) != optimizer.steps:
        count = 0 if held is None else len(held.records)
        raise trajectory.TrajectoryError(
            f"it has {count} steps and the optimizer {optimizer.steps}: was the optimizer's state "
            "not saved (save_only_model)?"
        )
    there, here = ({**each, "estimator": _of(each)} for each in (held.header, header))
    for name in IDENTITY:
        if there[name] != here[name]:
            raise trajectory.TrajectoryError(
                f"it was made with {name}={there[name]!r}, but training continues with "
                f"{here[name]!r}"
            )


def _of(header: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in header["estimator"].items() if k not in _IN_RECORDS}
