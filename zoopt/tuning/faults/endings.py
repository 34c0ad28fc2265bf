"""Clean endings, so that the same call resumes the run: on SIGTERM, and when the disk is full."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM unwind the stack as Ctrl-C does, instead of ending the process at once.

    The run's log is synchronized, its callbacks are closed, and the process exits with status 143.
    No report is written, since job schedulers wait only seconds before killing. Does nothing if the
    program has set its own handler, or outside the main thread.
    """
    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def disk_named(folder: Path) -> Iterator[None]:
    """Adds to a disk-full error what has been saved and how to resume.

    Raises:
        OSError: re-raised from the body; with this explanation if the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"the disk is full ({error.strerror}). Every step in the log in {folder} is safe, and "
            "earlier checkpoints are whole. Free some space and start the same run again to "
            "resume it",
            error.filename,
        ) from error
