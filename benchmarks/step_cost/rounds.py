"""Timing configurations in turn, round after round, so that what slows one slows its rivals too.

A *visit* is a context manager that gives one step of a configuration to be timed, and may do before
and after what is not to be timed. The machine's noise is common to a round, so ratios are taken
within each round, and then the median over rounds.
"""

import functools
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pandas as pd
import torch

from zoopt.directions.kernel import compilation

Visit = Callable[[], AbstractContextManager[Callable[[], object]]]


SUMMARY = ["rounds"] + [
    f"{name}{part}"
    for name in ("seconds", "forward", "passes", "ratio")
    for part in ("", "_q1", "_q3")
]


def visit_of(step: Callable[[], object]) -> Visit:
    """The visit of a step that needs nothing before or after."""
    return lambda: nullcontext(step)


def settled() -> None:
    """Waits for what a GPU has still to do, which would be counted with something else."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def reason(error: Exception) -> str:
    """Why a configuration is out, in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


class Clock:
    """Adds up the time spent in the functions that it wraps.

    On a GPU that is the time between two events in its queue. Nobody waits there: a GPU that is
    waited for has nothing to do while the host prepares what comes next.
    """

    def __init__(self):
        self.restart()

    def restart(self):
        """Begins at nothing again."""
        self._seconds, self._queued = 0.0, []

    @property
    def seconds(self):
        """The time so far; on a GPU, once it is ``settled``."""
        return self._seconds + sum(begin.elapsed_time(end) for begin, end in self._queued) / 1e3

    def timed(self, function):
        """The function, with its time added to ``seconds``."""

        @functools.wraps(function)
        def wrapped(*args):
            if torch.cuda.is_initialized():
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                result = function(*args)
                end.record()
                self._queued.append((begin, end))
            else:
                started = time.perf_counter()
                result = function(*args)
                self._seconds += time.perf_counter() - started
            return result

        return wrapped


def no_samples() -> pd.DataFrame:
    """What nothing timed comes to."""
    return _table([])


def _table(samples):
    return pd.DataFrame(samples, columns=["round", "method", "seconds", "forward"])


def alternate(
    visits: dict[str, Visit],
    rounds: int,
    clock: Clock,
    reset: Callable[[], None] = lambda: None,
) -> tuple[pd.DataFrame, dict[str, dict[str, object]]]:
    """Visits all, in an order drawn anew each round.

    Round 0 warms up and compiles, and is not among the samples. A configuration that raises is
    out, with its reason; the others go on.

    Returns:
        samples: columns round, method, seconds, forward.
        notes: for each method ``compile_seconds`` of its first visit, and ``reason`` if it failed.
    """
    samples, notes = [], {name: {} for name in visits}
    for number in range(rounds + 1):
        order = [name for name in visits if "reason" not in notes[name]]
        random.Random(number).shuffle(order)
        for name in order:
            reset()
            compiled = compilation.seconds()
            try:
                with visits[name]() as step:
                    settled()
                    clock.restart()
                    started = time.perf_counter()
                    step()
                    settled()
                    seconds, forward = time.perf_counter() - started, clock.seconds
            except Exception as error:
                notes[name]["reason"] = reason(error)
                continue
            notes[name].setdefault("compile_seconds", compilation.seconds() - compiled)
            if number > 0:
                samples.append((number, name, seconds, forward))
    return _table(samples), notes


def summary(samples: pd.DataFrame, floor: str) -> pd.DataFrame:
    """One row a method: medians and quartiles of seconds, and of the ratio to the floor.

    Without the floor's own samples ratios are NaN.
    """
    seconds = samples.pivot(index="round", columns="method", values="seconds")
    forward = samples.pivot(index="round", columns="method", values="forward")
    ratio = seconds.div(seconds.reindex(columns=[floor])[floor], axis="index")
    columns = {"rounds": seconds.count()}
    for name, values in {
        "seconds": seconds,
        "forward": forward,
        "passes": seconds - forward,
        "ratio": ratio,
    }.items():
        columns[name] = values.median()
        columns[f"{name}_q1"] = values.quantile(0.25)
        columns[f"{name}_q3"] = values.quantile(0.75)
    return pd.DataFrame(columns)
