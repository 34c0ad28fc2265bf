"""What a ZOTrainer's step may run into: a number that is not finite, and too little memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from zoopt.integrations.trainer_objectives import MicroBatches, rows_of
from zoopt.probing import NonFiniteLossError
from zoopt.tuning.fitting import Fitting

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
            RuntimeError: memory does not suffice for one row, or the inputs cannot be divided.
        """
        largest = max(map(rows_of, batches))
        now = SimpleNamespace(batch_size=min(largest, self.rows or largest))

        def note(entry: Mapping[str, int]) -> None:
            self.rows = entry["forward_size"]
            log.warning(
                "out of memory: from here on a forward has %d rows, and a step as many forwards as "
                "its batch needs; per_device_train_batch_size=%d with gradient accumulation does "
                "without the attempt",
                self.rows,
                self.rows,
            )

        fitting = Fitting(now, note)  # type: ignore[arg-type]  # it has what is asked of a task
        return fitting(
            lambda: call([part for batch in batches for part in parts(batch, now.batch_size)])
        )


def parts(inputs: Any, rows: int) -> list[Any]:
    """A micro-batch in parts of at most so many rows.

    Raises:
        RuntimeError: a tensor in it has not one row for each example.
    """
    total = rows_of(inputs)
    if total <= rows:
        return [inputs]
    odd = [tuple(leaf.shape) for leaf in _tensors(inputs) if leaf.ndim and len(leaf) != total]
    if odd or not isinstance(inputs, Mapping):
        raise RuntimeError(
            "memory does not suffice, and the batch cannot be divided: "
            + (
                f"a tensor of shape {odd[0]} has no row for each of {total} examples"
                if odd
                else f"it is a {type(inputs).__name__}, no dict"
            )
            + ". Take a smaller per_device_train_batch_size, with gradient accumulation"
        )

    def cut(start: int) -> Any:
        kept = tree_map_only(
            Tensor,
            lambda tensor: tensor[start : start + rows] if tensor.ndim else tensor,
            dict(inputs),
        )
        return type(inputs)(kept)  # type: ignore[call-arg]

    return [cut(start) for start in range(0, total, rows)]


def _tensors(inputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(dict(inputs)) if isinstance(leaf, Tensor)]
