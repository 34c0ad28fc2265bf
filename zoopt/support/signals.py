"""Defers Ctrl-C and termination during critical sections."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


@dataclass
class _Watch:
    """A handler that stands in for the program's own.

    Attributes:
        previous: the program's handlers. A signal that ends the process at once, as SIGTERM does by
            default, is left alone: it leaves no inconsistent θ behind.
        deferring: whether signals are kept instead of being passed on.
        caught: the signals that are kept.
    """

    previous: dict[int, Callable[[int, FrameType | None], object]]
    deferring: bool = False
    caught: list[tuple[int, FrameType | None]] = field(default_factory=list)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Keeps a signal, or passes it on to the program's handler."""
        if self.deferring:
            self.caught.append((number, frame))
        else:
            self.previous[number](number, frame)


_watch: _Watch | None = None


@contextmanager
def watched_signals() -> Iterator[None]:
    """A context in which :func:`deferred_signals` does not have to set handlers each time.

    Signals are passed on to the program's handlers. Python handles signals in the main thread only;
    in other threads there is nothing to do.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    watch = _Watch({number: handler for number, handler in handlers.items() if callable(handler)})
    handle = watch.handle
    for number in watch.previous:
        signal.signal(number, handle)
    _watch = watch
    try:
        yield
    finally:
        _watch = None
        for number, handler in watch.previous.items():
            if signal.getsignal(number) is handle:  # the block may have set another
                signal.signal(number, handler)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defers Ctrl-C and termination to the end of the block, when θ and the log are consistent."""
    with watched_signals():
        watch = _watch
        on_main = threading.current_thread() is threading.main_thread()
        if watch is None or watch.deferring or not on_main:
            yield
            return
        watch.deferring = True
        try:
            yield
        finally:
            watch.deferring = False
            caught, watch.caught = watch.caught, []
            for number, frame in caught:
                watch.handle(number, frame)
