"""Where a model may be: in one process, on one device. Anything else would go wrong in silence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch


class SpreadError(RuntimeError):
    """Several processes would tune one model."""


def refuse_spread(model: torch.nn.Module | None, tuned: Mapping[str, torch.Tensor]) -> None:
    """Refuses several processes, and models on several devices.

    Ranks would draw the same directions for different batches, and drift apart or overwrite one
    another's run. Of a model on several devices some parts are moved for each forward, or are in a
    random state of their own, so that what is probed is not what is tuned.

    Args:
        model: the model, where it is known.
        tuned: the parameters that are tuned, by name.

    Raises:
        SpreadError: there are several processes.
        ValueError: there are several devices.
    """
    processes = _processes()
    if processes > 1:
        raise SpreadError(
            f"there are {processes} processes (torchrun, torch.distributed), and zoopt tunes in "
            "one: they would draw the same directions for different batches. Start one process "
            "(python script.py)"
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
            + "), and zoopt tunes on one: load it without device_map, then model.to(device)"
        )


def _processes() -> int:
    distributed: Any = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    # torchrun sets both; other launchers set WORLD_SIZE for purposes of their own.
    return int(os.environ["WORLD_SIZE"]) if {"WORLD_SIZE", "RANK"} <= os.environ.keys() else 1
