"""Handling of non-finite objectives and out-of-memory errors in ZOTrainer's steps."""

from __future__ import annotations

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
"""Consecutive steps with a non-finite objective after which training ends."""


class Skips:
    """Counts the steps that are skipped because the objective was not finite.

    Attributes:
        total: number of skipped steps since training began.
        lately: number of skipped steps since the last log.
    """

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, total: int) -> None:
        """Called when training begins, or resumes after this many skips."""
        self.total, self.lately, self._in_a_row, self._told = total, 0, 0, False

    @property
    def skipping(self) -> bool:
        """Whether the current step is skipped."""
        return self._in_a_row > 0

    def made(self) -> None:
        """Called after a step that was not skipped."""
        self._in_a_row = 0

    def skip(self, error: NonFiniteLossError, step: int) -> None:
        """Skips a step; raises the error after too many consecutive skips."""
        self._in_a_row += 1
        if self._in_a_row >= PATIENCE:
            raise error
        self.total += 1
        self.lately += 1
        if not self._told:
            self._told = True
            log.warning(
                "step %d of training is skipped: %s Further skips are counted in the logs as "
                "skipped_steps; %d in a row end training",
                step,
                error,
                PATIENCE,
            )


class Forwards:
    """Halves micro-batches when memory runs out, and repeats the step.

    Attributes:
        rows: maximum rows per forward; None until memory first ran out.
    """

    def __init__(self) -> None:
        self.rows: int | None = None

    def __call__(self, batches: MicroBatches, call: Callable[[MicroBatches], T]) -> T:
        """Calls the function with micro-batches that fit into memory, and returns its result.

        Raises:
            RuntimeError: a single row does not fit, or the inputs cannot be halved.
        """

        def largest() -> int:
            rows = max(map(rows_of, batches))
            return rows if self.rows is None else min(rows, self.rows)

        def limit(rows: int) -> None:
            self.rows = rows
            log.warning(
                "out of memory: from now on a forward has at most %d rows, and a step as many "
                "forwards as its batch needs; per_device_train_batch_size=%d with gradient "
                "accumulation avoids the failed attempt",
                rows,
                rows,
            )

        def fitted() -> T:
            if self.rows is None:
                return call(batches)
            return call([part for batch in batches for part in parts(batch, self.rows)])

        return Fitting(largest, limit)(fitted)


def parts(inputs: Any, rows: int) -> list[Any]:
    """Splits a micro-batch into parts with at most ``rows`` rows.

    Raises:
        RuntimeError: a value is not a tensor with one row for each example.
    """
    total = rows_of(inputs)
    if total <= rows:
        return [inputs]
    held = dict(inputs) if isinstance(inputs, Mapping) else {"a batch that is not a dict": inputs}
    for name, value in held.items():
        if not _divisible(value, total):
            what = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value)
            raise RuntimeError(
                f"out of memory, and the batch cannot be halved: {name!r} ({what}) is not a "
                f"tensor with a row for each of {total} examples. Use a smaller "
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
