"""A trial: one contestant, with one setting and one seed, on one problem, within one budget."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from zoopt.probing import NonFiniteLossError

CURVE_POINTS = 24
"""Places, evenly spaced in the logarithm of evaluations, at which a trial's score is taken."""


class Steps(Protocol):
    """What is compared: :class:`zoopt.ZOOptimizer`, :class:`zoopt.baselines.BlackBox`, yours."""

    def step(self, closure: Callable[[], Any]) -> Any:
        """Evaluates the closure some times, and moves θ."""

    def settle(self) -> None:
        """Makes θ what the optimizer would have one use."""


@dataclass
class Case:
    """A problem as one trial has it.

    Attributes:
        source: a module or parameters, fresh.
        closure: the objective that optimizers see, with its noise and minibatches; lower is better.
        score: what they are judged by: without noise, on held-out data; lower is better.
        forwards: forward passes of one evaluation of the objective.
    """

    source: Any
    closure: Callable[[], Any]
    score: Callable[[], float]
    forwards: int = 1


@dataclass(frozen=True)
class Problem:
    """A named source of cases.

    Attributes:
        name: what tables call it.
        make: a case from a seed, of start, data and noise.
    """

    name: str
    make: Callable[[int], Case]


@dataclass(frozen=True)
class Contestant:
    """An optimizer, and the settings among which it is tuned.

    Attributes:
        name: what tables call it.
        make: the optimizer, from the case's source, a setting, the budget and a seed.
        settings: what is tried for it; a contestant as shipped has one.
    """

    name: str
    make: Callable[[Any, Mapping[str, float], int, int], Steps]
    settings: tuple[Mapping[str, float], ...] = field(default_factory=lambda: ({},))


class _Spent(Exception):
    """The budget of evaluations is used up, perhaps in the middle of a step."""


def run(
    problem: Problem, contestant: Contestant, setting: Mapping[str, float], budget: int, seed: int
) -> dict[str, Any]:
    """One trial, as the row that is kept of it.

    Seconds are those spent in steps; scoring does not count. Memory is by how much the process's
    peak grew, and exact in a process of its own.

    Returns:
        ``score`` at the end, ``curve`` of (evaluations, score), ``evaluations``, ``forwards``,
        ``seconds``, ``peak_mb``, ``algorithm`` and ``stop``: "budget", or why it ended before.
    """
    torch.manual_seed(seed)
    case = problem.make(seed)
    before = _peak_mb()
    started = time.perf_counter()
    optimizer = contestant.make(case.source, setting, budget, seed)
    seconds = time.perf_counter() - started
    evaluations = 0

    def closure() -> Any:
        nonlocal evaluations
        if evaluations >= budget:
            raise _Spent
        evaluations += 1
        return case.closure()

    def score() -> float:
        optimizer.settle()
        with torch.no_grad():
            return float(case.score())

    curve = [(0, score())]
    marks = sorted({round(budget ** ((k + 1) / CURVE_POINTS)) for k in range(CURVE_POINTS)})
    stop = "budget"
    while evaluations < budget:
        started = time.perf_counter()
        try:
            optimizer.step(closure)
        except _Spent:
            break
        except (NonFiniteLossError, FloatingPointError) as error:
            stop = f"{type(error).__name__} after {evaluations} evaluations"
            break
        finally:
            seconds += time.perf_counter() - started
        if marks and evaluations >= marks[0]:
            marks = [mark for mark in marks if mark > evaluations]
            curve.append((evaluations, score()))
    final = score()
    search = getattr(optimizer, "search", None)
    return {
        "score": final,
        "curve": [*curve, (evaluations, final)],
        "evaluations": evaluations,
        "forwards": evaluations * case.forwards,
        "seconds": seconds,
        "peak_mb": _peak_mb() - before,
        "algorithm": getattr(search, "algorithm", contestant.name),
        "stop": stop,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
