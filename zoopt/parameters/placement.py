"""Checks that a model is in one process and on one device; else tuning would silently go wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch


class SpreadError(RuntimeError):
    """Tuning was started in several processes."""


def refuse_spread(model: torch.nn.Module | None, tuned: Mapping[str, torch.Tensor]) -> None:
    """Refuses several processes, and models on several devices.

    Ranks would draw the same directions for different batches, and diverge or overwrite one
    another's run. If a model is on several devices, some parts are moved for each forward, or have
    their own random state, so that the probed model is not the tuned one.

    Args:
        model: the model, if it is known.
        tuned: the parameters that are tuned, by name.

    Raises:
        SpreadError: there are several processes.
        ValueError: there are several devices.
    """
    processes = _processes()
    if processes > 1:
        raise SpreadError(
            f"there are {processes} processes (torchrun, torch.distributed), but zoopt tunes in a "
            "single one: several would draw the same directions for different batches. Start one "
            "process (python script.py)"
        )
    everything = dict(model.named_parameters()) if model is not None else {}
    first: dict[str, str] = {}
    for name, tensor in {**everything, **tuned}.items():
        first.setdefault(str(tensor.device), name)
    placed: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {}
    if len(first) > 1 or len({str(device) for device in placed.values()}) > 1:
        where = {str(device): part for part, device in placed.items()} | first
        raise ValueError(
            "the model is on several devices ("
            + ", ".join(f"{part or 'all of it'} on {device}" for device, part in where.items())
            + "), but zoopt tunes on a single one: load it without device_map, then call "
            "model.to(device)"
        )


def _processes() -> int:
    distributed: Any = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    # torchrun sets both; other launchers set WORLD_SIZE for other purposes.
    return int(os.environ["WORLD_SIZE"]) if {"WORLD_SIZE", "RANK"} <= os.environ.keys() else 1
