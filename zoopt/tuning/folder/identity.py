"""The identity of a run: its examples and its task.

Settings alone do not identify a run: a file of the same name may hold other rows, and a task made
in Python is in no file. A resumed run and a stored score must have the same identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from zoopt.tasks import Task
from zoopt.tasks.text import TextInputs

_OPTIONS = (
    "target", "template", "max_length", "labels", "word_ids", "prompt", "columns",
    "max_new_tokens", "stop", "decoding", "inputs", "scorer",
)  # fmt: skip
"""Attributes of tasks and of their inputs that affect results."""


def identity_of(task: Task) -> dict[str, Any]:
    """Returns the task's options, and for each split the number of examples and their hash.

    A list of examples is identified by its SHA-256. Other sequences, which may be generated on
    access, are identified by their length only.
    """
    splits = {name: _split(getattr(task, name)) for name in ("train", "dev", "test")}
    return {"task": _told(task), **splits}


def _options(owner: Any) -> dict[str, Any]:
    return {name: _told(getattr(owner, name)) for name in _OPTIONS if hasattr(owner, name)}


def _told(value: Any) -> Any:
    """A comparable form of an option: plain values, the options of inputs, or the type's name."""
    if isinstance(value, TextInputs | Task):
        return _options(value)
    if isinstance(value, Mapping):
        return {str(name): _told(each) for name, each in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Sequence):
        return [_told(each) for each in value]
    return type(value).__qualname__


def _split(examples: Sequence[Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"examples": len(examples)}
    if isinstance(examples, list | tuple):
        digest = hashlib.sha256()
        for example in examples:
            digest.update(json.dumps(example, default=_plain, skipkeys=True).encode())
            digest.update(b"\n")
        told["sha256"] = digest.hexdigest()
    return told


def _plain(value: Any) -> Any:
    """JSON form of other types: the hash of an array, a numpy number, or the type's name."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, np.generic):
        return value.item()
    return type(value).__qualname__
