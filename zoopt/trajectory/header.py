"""A log's header: the base weights' fingerprint, and the optimizer's configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from zoopt import registry
from zoopt.directions.kernel.fused import KERNEL_VERSION
from zoopt.interfaces import Slot
from zoopt.optimizer import ZOOptimizer
from zoopt.trajectory.log import FORMAT, TrajectoryError

IDENTITY = (
    "parameters", "estimator", "update", "direction", "engine", "decay_1d", "seed", "maximize",
)  # fmt: skip
"""The fields of a header that must match for a log to be continued."""


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        tensor = tensor.detach().contiguous().cpu()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def frozen_part(model: torch.nn.Module, slots: Sequence[Slot]) -> Iterator[tuple[str, Tensor]]:
    """A model's floating-point parameters and saved buffers that are not in θ, by name.

    Quantized weights are left out, because some libraries repack them at the first forward.
    """
    seen = {id(slot.tensor) for slot in slots}
    members = chain(model.named_parameters(), model.named_buffers())
    saved = model.state_dict(keep_vars=True)
    for name, tensor in members:
        plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.is_floating_point()
        if plain and name in saved and id(tensor) not in seen:
            yield name, tensor


def header_of(optimizer: ZOOptimizer, model: torch.nn.Module | None = None) -> dict[str, Any]:
    """The configuration of an optimizer at step 0 that a replay needs, and θ's fingerprint.

    Args:
        optimizer: the optimizer at the start of the run.
        model: the model that θ belongs to; its other weights have a separate fingerprint.
    """
    frozen = None if model is None else fingerprint(frozen_part(model, optimizer.slots))
    return {
        "format": FORMAT,
        "kernel": KERNEL_VERSION,
        "torch": torch.__version__,
        "zoopt": _own_version(),
        "base": fingerprint((slot.name, slot.tensor) for slot in optimizer.slots),
        "frozen": frozen,
        "parameters": [[slot.name, slot.group] for slot in optimizer.slots],
        "estimator": registry.describe(optimizer.estimator),
        "update": registry.describe(optimizer.update),
        "direction": optimizer.direction.name,
        "engine": optimizer.engine.name,
        "decay_1d": [bool(group["decay_1d"]) for group in optimizer.param_groups],
        "seed": optimizer.seed,
        "maximize": optimizer.maximize,
    }


def check_base(
    header: dict[str, Any], optimizer: ZOOptimizer, model: torch.nn.Module | None = None
) -> None:
    """Refuses a model or an optimizer that differs from the one a log began with.

    Untuned weights are not checked if the log has no fingerprint of them, or no model is given.
    """
    mine = header_of(optimizer, model)
    if mine["base"] != header["base"]:
        raise TrajectoryError(
            f"the log starts from weights with fingerprint {header['base'][:12]}, but the given "
            f"model has {mine['base'][:12]}: use the base model exactly as it was before tuning "
            "(same weights, same dtype, same choice of parameters)"
        )
    there, here = header.get("frozen"), mine["frozen"]
    if there and here and there != here:
        raise TrajectoryError(
            f"the log is of a model whose untuned weights have fingerprint {there[:12]}, but the "
            f"given model's have {here[:12]}: tuned parameters fit only the model they were tuned "
            "in, so use that base model (same weights, same dtype)"
        )
    for name in IDENTITY:
        if mine[name] != header[name]:
            raise TrajectoryError(
                f"the log was made with {name}={header[name]!r}, but this run has {mine[name]!r}"
            )


def optimizer_for(model: torch.nn.Module, header: dict[str, Any]) -> ZOOptimizer:
    """An optimizer over a model, configured as a log's header says."""
    tensors = dict(model.named_parameters())
    missing = [name for name, _ in header["parameters"] if name not in tensors]
    if missing:
        more = f" and {len(missing) - 1} more parameters" if missing[1:] else ""
        raise TrajectoryError(f"the log tunes {missing[0]!r}{more}, which the model does not have")
    groups: list[dict[str, Any]] = [{"params": [], "decay_1d": d} for d in header["decay_1d"]]
    for name, group in header["parameters"]:
        groups[group]["params"].append((name, tensors[name]))
    optimizer = ZOOptimizer(
        groups,
        estimator=registry.make_estimator(**header["estimator"]),
        update=registry.make_update(**header["update"]),
        direction=header["direction"],
        engine=header["engine"],
        seed=header["seed"],
        maximize=header["maximize"],
    )
    check_base(header, optimizer, model)
    return optimizer


def _own_version() -> str:
    try:
        return version("zoopt-torch")
    except PackageNotFoundError:  # zoopt is not installed, but run from its sources
        return "unknown"
