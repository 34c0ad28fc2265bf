"""Whether kernels are compiled, what that takes, and what happens where it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from zoopt.support.memory import ran_out

T = TypeVar("T")


@dataclass
class _State:
    mode: str = "auto"
    seconds: float = 0.0


_state = _State()

log = logging.getLogger("zoopt")


def allowed() -> bool:
    """Whether kernels may be compiled."""
    return _state.mode == "auto"


def seconds() -> float:
    """The time in seconds that this process has spent compiling and checking kernels so far."""
    return _state.seconds


@contextmanager
def counted() -> Iterator[None]:
    """Counts the time of a with block, if it succeeds, as compilation."""
    started = time.perf_counter()
    yield
    _state.seconds += time.perf_counter() - started


@contextmanager
def kernel_mode(mode: str) -> Iterator[None]:
    """Chooses the kernels that run in a with block.

    Args:
        mode: ``"auto"``, the default, for compiled kernels where there are any; or ``"eager"`` for
            the reference in plain torch operations. On a CPU, results are the same.

    Raises:
        ValueError: for any other mode.

    Example:
        >>> import torch, zoopt
        >>> optimizer = zoopt.ZOOptimizer(torch.nn.Linear(2, 1), lr=1e-3)
        >>> with zoopt.kernel_mode("eager"):
        ...     step = optimizer.step(lambda: 0.0)
    """
    if mode not in ("auto", "eager"):
        raise ValueError(f"kernel mode {mode!r}; expected 'auto' or 'eager'")
    previous, _state.mode = _state.mode, mode
    try:
        yield
    finally:
        _state.mode = previous


def attempted(make: Callable[[], T], kernel: str, instead: str) -> T | None:
    """What a function makes; None, after a warning, if it fails. Its time counts as compilation.

    Args:
        make: builds or checks a kernel.
        kernel: its name, for the warning.
        instead: what zoopt does without it, for the warning.
    """
    try:
        with counted():
            return make()
    except Exception as error:
        if ran_out(error):
            raise
        log.warning(
            "zoopt %s (the results are the same), because its %s kernel failed: %s",
            instead,
            kernel,
            reason(error),
        )
        return None


def passes(check: Callable[[], None], kernel: str, instead: str) -> bool:
    """Whether a check of a kernel raises nothing; see :func:`attempted`."""

    def checked() -> bool:
        check()
        return True

    return attempted(checked, kernel, instead) is not None


def reason(error: Exception) -> str:
    """The first line of an error's message, or the name of its class."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
