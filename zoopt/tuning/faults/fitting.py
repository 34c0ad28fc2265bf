"""Out of memory: the rows of a forward are halved, and what failed is done again."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from zoopt.support.memory import ran_out
from zoopt.tasks import Task

T = TypeVar("T")


class TooLittleMemoryError(RuntimeError):
    """Memory does not suffice for a forward of one row."""


class Fitting:
    """Calls what forwards examples, with fewer rows in a forward once memory did not suffice.

    Args:
        task: whose ``batch_size`` is the rows of a forward.
        note: told of each halving, as an entry for ``metrics.jsonl``.
    """

    def __init__(self, task: Task, note: Callable[[dict[str, Any]], None]) -> None:
        self._task, self._note = task, note

    def __call__(self, call: Callable[[], T], restore: Callable[[], object] | None = None) -> T:
        """What the call returns.

        Args:
            call: forwards examples.
            restore: puts back what a failed call may have left behind.

        Raises:
            TooLittleMemoryError: memory does not suffice for a single row.
        """
        while True:
            try:
                return call()
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                if self._task.batch_size < 2:
                    raise TooLittleMemoryError(
                        f"memory does not suffice for a forward of one row ({error}): shorten the "
                        "inputs (max_length), or take a smaller dtype or model"
                    ) from error
            # Only here, after the except block, are the failed forward's tensors unreferenced.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._task.batch_size //= 2
            self._note({"forward_size": self._task.batch_size})
            if restore is not None:
                restore()
