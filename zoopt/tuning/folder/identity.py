"""The identity of a run: its examples, its task and its objective.

Settings alone do not identify a run: a file of the same name may hold other rows, and a task made
in Python is in no file. A resumed run and a stored score must have the same identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from zoopt.objectives.metric import Metric
from zoopt.tasks import Task
from zoopt.tasks.text import TextInputs
from zoopt.tuning.folder.callables import described, hashed

_OPTIONS = (
    "target", "template", "max_length", "labels", "word_ids", "prompt", "columns",
    "max_new_tokens", "stop", "decoding", "inputs", "scorer",
)  # fmt: skip
"""Attributes of tasks and of their inputs that affect results."""

_MADE = {"collate": "collate", "_choices": "choices"}
"""Arguments of tasks that may be functions, or hold them, by the attribute that has them."""


def identity_of(task: Task, objective: Metric) -> dict[str, Any]:
    """Returns what identifies a run, in parts.

    ``train``, ``dev`` and ``test`` have the number of examples and, for a list, its SHA-256. Other
    sequences, which may be generated on access, are identified by their length only. ``task`` has
    the task's options, ``made`` its functions and choices, and ``objective`` the arguments and the
    code of the objective; see :func:`described`.
    """
    splits = {name: _split(getattr(task, name)) for name in ("train", "dev", "test")}
    made = {"made": _made(task), "objective": described(objective)}
    return {"task": _told(task), **splits, **made}


def _made(task: Task) -> dict[str, Any]:
    given = {as_: getattr(task, name, None) for name, as_ in _MADE.items()}
    made = {name: described(value) for name, value in given.items() if value is not None}
    scorer = getattr(task, "scorer", None)
    return made if scorer is None else {**made, "scorer": _made(scorer)}


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
            digest.update(json.dumps(example, default=hashed, skipkeys=True).encode())
            digest.update(b"\n")
        told["sha256"] = digest.hexdigest()
    return told
