"""The trajectory: every update in a few bytes, written before it is applied, and repeated at will.

A run's log is a JSON-lines file. Its first line is a header that says what the run started from;
each further line is one :class:`~zoopt.records.StepRecord`, or says that the run was rolled back
and the steps since do not count. Losses are logged, and coefficients follow from them, so a replay
runs the same estimator, engine and update rule on the same numbers and gives the same θ bit for
bit, without a single forward pass.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoopt import checkpoint, registry
from zoopt.directions.kernel import KERNEL_VERSION
from zoopt.interfaces import Slot
from zoopt.optimizer import ZOOptimizer
from zoopt.records import StepRecord

FORMAT = 2
"""Version of the log. A reader of a later format reads earlier ones; an earlier one refuses.

2: steps have ``n`` and ``clip``, and there are lines of rollbacks.
"""

FILENAME = "trajectory.jsonl"


class TrajectoryError(RuntimeError):
    """A log that cannot be continued or replayed, and why."""


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
    """What a model has beside θ: its other floating-point parameters and saved buffers, by name.

    Quantized weights are left out: some libraries pack them anew at the first forward.
    """
    seen = {id(slot.tensor) for slot in slots}
    members = chain(model.named_parameters(), model.named_buffers())
    saved = model.state_dict(keep_vars=True)
    for name, tensor in members:
        plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.is_floating_point()
        if plain and name in saved and id(tensor) not in seen:
            yield name, tensor


def header_of(optimizer: ZOOptimizer, model: torch.nn.Module | None = None) -> dict[str, Any]:
    """What a replay needs to know of an optimizer at step 0, and the fingerprint of its θ.

    Args:
        optimizer: as the run begins with it.
        model: the model that θ belongs to, whose other weights have a fingerprint of their own.
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


@dataclass(frozen=True)
class Rollback:
    """A run went back to an earlier step.

    Attributes:
        to: the number of updates that still count.
        at: the number of updates when it went back.
        why: what had happened.
    """

    to: int
    at: int
    why: str


@dataclass(frozen=True)
class Log:
    """A log's content.

    Attributes:
        header: the first line.
        records: the steps that count, in order.
        rollbacks: the times that the run was rolled back, in order.
        size: bytes of the whole lines; anything after them is a torn last line.
    """

    header: dict[str, Any]
    records: tuple[StepRecord, ...]
    rollbacks: tuple[Rollback, ...]
    size: int


def read(path: Path) -> Log | None:
    """The content of a log, or None where there is no whole header yet. Writes nothing.

    Raises:
        TrajectoryError: a line before the last is damaged, or a later version wrote it.
    """
    if not path.exists():
        return None
    entries, size = [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                raise TrajectoryError(
                    f"line {number + 1} of {path} is damaged ({error}). The lines before it are "
                    f"good: cut the file there, and the run goes on from step {number - 1}."
                ) from None
            size += len(line)
    if not entries:
        return None
    header = _checked(entries[0], path)
    records: list[StepRecord] = []
    rollbacks: list[Rollback] = []
    for entry in entries[1:]:
        if "rollback" in entry:
            rollbacks.append(Rollback(**entry["rollback"]))
            del records[rollbacks[-1].to :]
        else:
            records.append(_record(entry))
    return Log(header, tuple(records), tuple(rollbacks), size)


class Trajectory:
    """A log being written: a new one, or one that is continued after its last whole line.

    Args:
        path: the file.
        header: what to begin a new log with; None to continue the one that is there.
    """

    def __init__(self, path: Path, header: dict[str, Any] | None = None) -> None:
        log = None if header is not None else read(path)
        self._size = log.size if log is not None else 0
        self._file = path.open("ab" if log is not None else "wb", buffering=0)
        self._file.truncate(self._size)
        if log is None and header is not None:
            self._write(header)
        self.sync()

    def append(self, record: StepRecord) -> None:
        """Writes one step and hands it to the operating system, where a kill cannot lose it.

        Where the disk is full, the log is left as it was.
        """
        self._write(asdict(record))

    def roll_back(self, rollback: Rollback) -> None:
        """Writes that the steps since ``rollback.to`` do not count."""
        self._write({"rollback": asdict(rollback)})
        self.sync()

    def sync(self) -> None:
        """Forces the log to disk, where a power cut cannot lose it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Forces the log to disk and closes it."""
        try:
            self.sync()
        finally:
            self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        try:
            rest = line
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            self._file.truncate(self._size)
            raise
        self._size += len(line)


def check_base(
    header: dict[str, Any], optimizer: ZOOptimizer, model: torch.nn.Module | None = None
) -> None:
    """Refuses a model, or an optimizer, that is not the one a log began with.

    Of what is not tuned, where the log says nothing of it, or no model is given, anything goes.
    """
    mine = header_of(optimizer, model)
    if mine["base"] != header["base"]:
        raise TrajectoryError(
            f"the log starts from weights with fingerprint {header['base'][:12]}, the model given "
            f"has {mine['base'][:12]}: a replay needs the base model exactly as it was before "
            "tuning (same weights, same dtype, same choice of parameters)"
        )
    there, here = header.get("frozen"), mine["frozen"]
    if there and here and there != here:
        raise TrajectoryError(
            f"the log is of a model whose untuned weights have fingerprint {there[:12]}, those of "
            f"the model given have {here[:12]}: what was tuned fits the one it was tuned in, so "
            "take that base model (same weights, same dtype)"
        )
    for name in ("parameters", "estimator", "update", "direction", "engine", "seed", "maximize"):
        if mine[name] != header[name]:
            raise TrajectoryError(
                f"the log was made with {name}={header[name]!r}, this run has {mine[name]!r}"
            )


def optimizer_for(model: torch.nn.Module, header: dict[str, Any]) -> ZOOptimizer:
    """The optimizer that a log was made with, over a model."""
    tensors = dict(model.named_parameters())
    missing = [name for name, _ in header["parameters"] if name not in tensors]
    if missing:
        raise TrajectoryError(
            f"the log tunes {missing[0]!r} and {len(missing) - 1} more that the model does not have"
        )
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


def replay(model: torch.nn.Module, run_dir: str | Path, step: int | str = "last") -> int:
    """Turns base weights into a run's tuned weights, in place, without a forward pass.

    On the same backend the result is the run's own θ bit for bit.

    Args:
        model: the base model, its weights as they were before tuning.
        run_dir: the run's folder.
        step: how many updates: a number, ``"last"``, or ``"best"`` by development score.

    Returns:
        The number of updates applied.

    Raises:
        TrajectoryError: another base model, a log from a later version, or a step not in it.
    """
    log = read(Path(run_dir) / FILENAME)
    if log is None:
        raise TrajectoryError(f"{run_dir} has no {FILENAME}: is it the folder of a run?")
    wanted = _wanted(step, Path(run_dir), len(log.records))
    optimizer = optimizer_for(model, log.header)
    with optimizer.chain():
        for record in log.records[:wanted]:
            optimizer.repeat(record)
    return wanted


def _wanted(step: int | str, run_dir: Path, available: int) -> int:
    if step == "best":
        best = run_dir / checkpoint.BEST
        if not best.exists():
            raise TrajectoryError(f"{run_dir} has no {best.name}: the run was never evaluated")
        step = int(checkpoint.facts(best)["step"])
    elif step == "last":
        step = available
    if not isinstance(step, int):
        raise TrajectoryError(f"step={step!r} is not a number, 'last' or 'best'")
    if not 0 <= step <= available:
        raise TrajectoryError(f"step {step} is not in the log, which has 0 to {available}")
    return step


def _checked(header: Any, path: Path) -> dict[str, Any]:
    if not isinstance(header, dict) or "format" not in header:
        raise TrajectoryError(f"{path} is not a zoopt trajectory: its first line is not a header")
    if header["format"] > FORMAT:
        raise TrajectoryError(
            f"{path} has format {header['format']}, this zoopt reads up to {FORMAT}: upgrade zoopt"
        )
    if header["kernel"] != KERNEL_VERSION:
        raise TrajectoryError(
            f"{path} was made with kernel version {header['kernel']}, this zoopt has "
            f"{KERNEL_VERSION}: their directions differ, so install the zoopt that made it"
        )
    return header


def _own_version() -> str:
    try:
        return version("zoopt-torch")
    except PackageNotFoundError:  # run from its sources
        return "unknown"


def _record(entry: dict[str, Any]) -> StepRecord:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return StepRecord(**fields)
