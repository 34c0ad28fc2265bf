"""Checkpoints: θ, an update rule's dense state, and facts about them, in one safetensors file.

A file appears whole or not at all: it is written beside its place, forced to disk and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file, save_model

from zoopt.masters import publish
from zoopt.optimizer import ZOOptimizer

BEST = "best.safetensors"
"""Where a run keeps the θ that scored best."""


def save(path: Path, optimizer: ZOOptimizer, facts: dict[str, Any], state: bool = True) -> None:
    """Writes θ as it stands, after settling the optimizer.

    Args:
        path: the file.
        optimizer: whose θ, and whose update rule's state.
        facts: what :func:`facts` gives back; the number of steps is added to it.
        state: whether the state is written too, which continuing needs.
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
    save_file(tensors, beside, metadata={"zoopt": json.dumps(about)})
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)


def facts(path: Path) -> dict[str, Any]:
    """The facts in a checkpoint, and its ``"step"``, without reading the weights."""
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["zoopt"])
    return about


@torch.no_grad()
def load(path: Path, optimizer: ZOOptimizer) -> dict[str, Any]:
    """Puts θ, the state and the step count of a checkpoint into an optimizer; returns the facts."""
    optimizer.settle()
    about = facts(path)
    with safe_open(path, framework="pt") as file:
        for slot in optimizer.slots:
            slot.exact.copy_(file.get_tensor(f"theta.{slot.name}"))
        publish(optimizer.slots)
        by_name = {slot.name: slot for slot in optimizer.slots}
        for key in file.keys():  # noqa: SIM118, a safetensors file is no mapping
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
    """Saves a model for its own ``from_pretrained``, or its weights as ``model.safetensors``."""
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    own: Any = getattr(model, "save_pretrained", None)
    if own is not None:
        own(beside)
    else:
        beside.mkdir(parents=True)
        save_model(model, str(beside / "model.safetensors"))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)
