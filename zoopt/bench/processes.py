"""Runs tasks in parallel processes; a killed process is reported instead of hanging."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch


@dataclass(frozen=True)
class Died:
    """The result of a process that ended without an answer.

    Attributes:
        code: its exit status; −n if signal n ended it.
    """

    code: int | None

    def __str__(self) -> str:
        if self.code == -signal.SIGKILL:
            return "killed, as the system does when memory runs out"
        if self.code is not None and self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        return f"exit status {self.code}"


class TaskError(RuntimeError):
    """Raised if a task raised an error; the message is its traceback."""


def forked(
    tasks: Sequence[Callable[[], Any]], workers: int = 1, threads: int = 1
) -> Iterator[tuple[int, Any]]:
    """Runs each task in a fork of this process, and yields the results as they arrive.

    Peak memory is the task's own, and only its result is pickled. A process that ends without a
    result (out of memory, a crash in compiled code) yields :class:`Died`.

    Args:
        tasks: the functions to run.
        workers: number of parallel processes.
        threads: torch's threads in each.

    Yields:
        The number of a task, and its result.

    Raises:
        TaskError: a task raised; the other running tasks are terminated.
    """
    context = multiprocessing.get_context("fork")
    waiting = list(enumerate(tasks))[::-1]
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, task = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_answer, args=(sender, task, threads))
                process.start()
                sender.close()  # so that the receiver ends when the process does
                running[receiver] = number, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                number, ended = running.pop(ready)
                yield number, _received(ready, ended)
    finally:
        for receiver, (_, process) in running.items():
            process.terminate()
            process.join()
            receiver.close()


def _received(receiver: Connection, process: BaseProcess) -> Any:
    try:
        answer, error = receiver.recv()
    except EOFError:
        process.join()
        return Died(process.exitcode)
    finally:
        receiver.close()
    process.join()
    if error is not None:
        raise TaskError(error)
    return answer


def _answer(sender: Connection, task: Callable[[], Any], threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        sender.send((task(), None))
    except Exception:
        sender.send((None, traceback.format_exc()))
