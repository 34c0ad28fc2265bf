"""Handling of out-of-memory errors: halve the rows per forward and retry."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from zoopt.support.memory import ran_out

T = TypeVar("T")


class TooLittleMemoryError(RuntimeError):
    """A forward of a single row does not fit into memory."""


class Fitting:
    """Runs a function, halving the rows per forward and retrying when memory runs out.

    Args:
        rows: returns the number of rows of the largest forward; called when memory ran out.
        limit: called at each halving with the most rows that a forward may have from then on.
    """

    def __init__(self, rows: Callable[[], int], limit: Callable[[int], object]) -> None:
        self._rows, self._limit = rows, limit

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
                rows = self._rows()
                if rows < 2:
                    raise TooLittleMemoryError(
                        f"a forward of one row does not fit into memory ({error}): shorten the "
                        "inputs (max_length), or use a smaller dtype or model"
                    ) from error
            # Only here, after the except block, are the failed forward's tensors unreferenced.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._limit(rows // 2)
            if restore is not None:
                restore()
