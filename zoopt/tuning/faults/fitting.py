"""Handling of out-of-memory errors: halve the rows per forward and retry."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from zoopt.support.memory import ran_out
from zoopt.tasks import Task

T = TypeVar("T")


class TooLittleMemoryError(RuntimeError):
    """A forward of a single row does not fit into memory."""


class Fitting:
    """Runs a function, halving the rows per forward and retrying when memory runs out.

    Args:
        task: its ``batch_size``, the rows per forward, is reduced.
        note: called at each halving with an entry for ``metrics.jsonl``.
    """

    def __init__(self, task: Task, note: Callable[[dict[str, Any]], None]) -> None:
        self._task, self._note = task, note

    def __call__(self, call: Callable[[], T], restore: Callable[[], object] | None = None) -> T:
        """Calls the function until it fits into memory, and returns its result.

        Args:
            call: the function that runs forwards.
            restore: called after a failed attempt, to undo its side effects.

        Raises:
            TooLittleMemoryError: even a single row does not fit.
        """
        while True:
            try:
                return call()
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                if self._task.batch_size < 2:
                    raise TooLittleMemoryError(
                        f"a forward of one row does not fit into memory ({error}): shorten the "
                        "inputs (max_length), or use a smaller dtype or model"
                    ) from error
            # Only here, after the except block, are the failed forward's tensors unreferenced.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._task.batch_size //= 2
            self._note({"forward_size": self._task.batch_size})
            if restore is not None:
                restore()
