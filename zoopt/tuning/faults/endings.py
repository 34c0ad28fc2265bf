"""How a run may be ended from outside, so that the same call goes on: SIGTERM, and a full disk."""

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
    """Lets SIGTERM unwind the stack as Ctrl-C does, instead of ending the process on the spot.

    The run's log is synchronized and its callbacks are closed, and the process exits with status
    143. No report is written: who terminates a job waits for seconds only. A handler that the
    program has set is left alone, and so are threads other than the main one.
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
    """Says of a full disk what is safe and what to do.

    Raises:
        OSError: as it was raised within, with that said where it is about a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"the disk is full ({error.strerror}). What the log in {folder} has is applied, and "
            "nothing else; earlier checkpoints are whole. Free some space and start the same run "
            "again: it goes on from there",
            error.filename,
        ) from error
