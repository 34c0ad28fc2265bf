"""Checkpoints: θ, an update rule's dense state, and facts about them, in one safetensors file.

Files are replaced atomically: written under a temporary name, synced to disk and renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file, save_model

from zoopt.optimizer import ZOOptimizer
from zoopt.parameters.masters import Vectors

BEST = "best.safetensors"
"""The file in which a run keeps the θ with the best score."""


class DamagedCheckpointError(RuntimeError):
    """A checkpoint file is damaged or incomplete."""


def save(path: Path, optimizer: ZOOptimizer, facts: dict[str, Any], state: bool = True) -> None:
    """Writes the current θ, after settling the optimizer.

    Args:
        path: the file.
        optimizer: holds θ and the update rule's state.
        facts: the dictionary that :func:`facts` returns; the number of steps is added to it.
        state: whether to write the state too, which is needed to continue a run.
    """
    optimizer.settle()
    tensors = {f"theta.{s.name}": s.exact.detach().contiguous() for s in optimizer.slots}
    numbers: dict[str, Any] = {}
    for slot in optimizer.slots if state else ():
        for name, value in optimizer.state[slot.tensor].items():
            if isinstance(value, torch.Tensor):
                tensors[f"state.{name}.{slot.name}"] = value.contiguous()
            else:
                numbers.setdefault(name, {})[slot.name] = value
    about = {**facts, "step": optimizer.steps, "state": numbers}
    beside = path.with_name(path.name + ".partial")
    try:
        with _system_errors_as_such(path):
            save_file(tensors, beside, metadata={"zoopt": json.dumps(about)})
        into_place(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(data)
    into_place(beside, path)


def into_place(beside: Path, path: Path) -> None:
    """Syncs a temporary file to disk and renames it to its final name."""
    for what in (beside, path.parent):
        if what == path.parent:
            os.replace(beside, path)
        held = os.open(what, os.O_RDONLY)
        try:
            os.fsync(held)
        finally:
            os.close(held)


def facts(path: Path) -> dict[str, Any]:
    """The facts in a checkpoint, including its ``"step"``, without reading the weights.

    Raises:
        FileNotFoundError: the file does not exist.
        DamagedCheckpointError: it is truncated, or not a checkpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["zoopt"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(
            f"{path} is damaged ({error}). Restart the run with the base model: the checkpoint "
            "will be rebuilt from the log"
        ) from error
    return about


def step_of(path: Path, default: int) -> int:
    """The number of updates in a checkpoint; the default if it is missing or damaged."""
    try:
        return int(facts(path)["step"])
    except (FileNotFoundError, DamagedCheckpointError):
        return default


@torch.no_grad()
def load(path: Path, optimizer: ZOOptimizer) -> dict[str, Any]:
    """Loads a checkpoint's θ, state and step count into an optimizer; returns its facts."""
    optimizer.settle()
    about = facts(path)
    optimizer.state.clear()
    with safe_open(path, framework="pt") as file:
        for slot in optimizer.slots:
            slot.exact.copy_(file.get_tensor(f"theta.{slot.name}"))
        Vectors(optimizer.slots).publish()
        by_name = {slot.name: slot for slot in optimizer.slots}
        for key in file.keys():  # noqa: SIM118, a safetensors file is not a mapping
            kind, _, rest = key.partition(".")
            if kind == "state":
                name, _, parameter = rest.partition(".")
                tensor = by_name[parameter].tensor
                optimizer.state[tensor][name] = file.get_tensor(key).to(tensor.device)
        for name, values in about["state"].items():
            for parameter, value in values.items():
                optimizer.state[by_name[parameter].tensor][name] = value
    optimizer.steps = about["step"]
    return about


def export(model: torch.nn.Module, folder: Path) -> None:
    """Saves a model with its ``save_pretrained``, or its weights as ``model.safetensors``."""
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    own: Any = getattr(model, "save_pretrained", None)
    try:
        with _system_errors_as_such(folder):
            if own is not None:
                own(beside)
            else:
                beside.mkdir(parents=True)
                save_model(model, str(beside / "model.safetensors"))
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)


@contextmanager
def _system_errors_as_such(path: Path) -> Iterator[None]:
    """Turns safetensors' errors that wrap an error of the system into OSError."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
