"""What a ZOTrainer's step may run into: a number that is not finite, and too little memory."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from zoopt.integrations.trainer.objectives import MicroBatches, rows_of
from zoopt.interfaces import NonFiniteLossError
from zoopt.tuning.faults.fitting import Fitting

log = logging.getLogger("zoopt")

T = TypeVar("T")

PATIENCE = 10
"""Steps in a row without a finite number that end training."""


class Skips:
    """Counts the steps that are left out because the objective was not finite.

    Attributes:
        total: how many, since training began.
        lately: how many, since the last log.
    """

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, total: int) -> None:
        """Training begins, or goes on after so many."""
        self.total, self.lately, self._in_a_row, self._told = total, 0, 0, False

    @property
    def skipping(self) -> bool:
        """Whether the present step is left out."""
        return self._in_a_row > 0

    def made(self) -> None:
        """A step was made."""
        self._in_a_row = 0

    def skip(self, error: NonFiniteLossError, step: int) -> None:
        """A step is left out; raises the error where there have been too many in a row."""
        self._in_a_row += 1
        if self._in_a_row >= PATIENCE:
            raise error
        self.total += 1
        self.lately += 1
        if not self._told:
            self._told = True
            log.warning(
                "step %d of training is skipped: %s Further ones are counted in the logs as "
                "skipped_steps; %d in a row end training",
                step,
                error,
                PATIENCE,
            )


class Forwards:
    """Halves micro-batches once memory does not suffice for them, and does the step again.

    Attributes:
        rows: the most that a forward may have; None while memory has sufficed.
    """

    def __init__(self) -> None:
        self.rows: int | None = None

    def __call__(self, batches: MicroBatches, call: Callable[[MicroBatches], T]) -> T:
        """What the call returns, of micro-batches that fit.

        Raises:
            RuntimeError: memory does not suffice for one row, or the inputs cannot be halved.
        """

        def note(entry: Mapping[str, int]) -> None:
            self.rows = entry["forward_size"]
            log.warning(
                "out of memory: from here on a forward has %d rows, and a step as many forwards as "
                "its batch needs; per_device_train_batch_size=%d with gradient accumulation does "
                "without the attempt",
                self.rows,
                self.rows,
            )

        def fitted() -> T:
            if self.rows is None:
                return call(batches)
            return call([part for batch in batches for part in parts(batch, self.rows)])

        fitting = Fitting(_Size(batches, self.rows), note)  # type: ignore[arg-type]  # all it asks
        return fitting(fitted)


class _Size:
    """The rows of the largest forward, as a task has them; counted when a forward failed."""

    def __init__(self, batches: MicroBatches, limit: int | None) -> None:
        self._batches, self._limit = batches, limit

    @functools.cached_property
    def batch_size(self) -> int:
        """May be set."""
        largest = max(map(rows_of, self._batches))
        return largest if self._limit is None else min(largest, self._limit)


def parts(inputs: Any, rows: int) -> list[Any]:
    """A micro-batch in parts of at most so many rows.

    Raises:
        RuntimeError: something in it is no tensor with one row for each example.
    """
    total = rows_of(inputs)
    if total <= rows:
        return [inputs]
    held = dict(inputs) if isinstance(inputs, Mapping) else {"a batch that is no dict": inputs}
    for name, value in held.items():
        if not _divisible(value, total):
            what = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value)
            raise RuntimeError(
                f"memory does not suffice, and the batch cannot be halved: {name!r} ({what}) is no "
                f"tensor with a row for each of {total} examples. Take a smaller "
                "per_device_train_batch_size, with gradient_accumulation_steps"
            )

    def cut(value: Any, start: int) -> Any:
        return value[start : start + rows] if isinstance(value, Tensor) and value.ndim else value

    return [
        type(inputs)({name: cut(value, start) for name, value in held.items()})
        for start in range(0, total, rows)
    ]


def _divisible(value: Any, total: int) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 or len(value) == total
    return value is None or isinstance(value, bool | int | float)
