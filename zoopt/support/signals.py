"""Defers Ctrl-C and termination during critical sections."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_waiting = False
"""Whether signals are deferred already."""


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defers Ctrl-C and termination to the end of the block, when θ and the log are consistent.

    Python handles signals in the main thread only; in other threads there is nothing to defer.
    """
    global _waiting
    if _waiting or threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is not None:
            previous[number] = handler
            signal.signal(number, lambda n, frame: caught.append((n, frame)))
    _waiting = True
    try:
        yield
    finally:
        _waiting = False
        for restored, handler in previous.items():
            signal.signal(restored, handler)
        for received, frame in caught:
            handler = previous[received]
            if callable(handler):
                handler(received, frame)
            elif handler == signal.SIG_DFL:
                signal.raise_signal(received)
