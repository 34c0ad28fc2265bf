"""A trial: one contestant, with one setting and one seed, on one problem, within one budget."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

CURVE_POINTS = 24
"""Places, evenly spaced in the logarithm of evaluations, at which a trial's score is taken."""


DIVERGED = (ArithmeticError, np.linalg.LinAlgError)
"""What a contestant raises whose numbers are out of bounds; NonFiniteLossError is one of them."""


class Steps(Protocol):
    """What is compared: :class:`zoopt.ZOOptimizer`, :class:`zoopt.baselines.BlackBox`, yours."""

    def step(self, closure: Callable[[], Any]) -> Any:
        """Evaluates the closure some times, and moves θ; not at all if it is finished."""

    def settle(self) -> None:
        """Makes θ what the optimizer would have one use."""


@dataclass
class Case:
    """A problem as one trial has it.

    Attributes:
        source: a module or parameters, fresh.
        closure: the objective that optimizers see, with its noise and minibatches.
        score: what they are judged by: without noise, on held-out data.
        forwards: forward passes of one evaluation of the objective.
        higher_is_better: of both. Optimizers minimize, and are given the objective's negative.
    """

    source: Any
    closure: Callable[[], Any]
    score: Callable[[], float]
    forwards: int = 1
    higher_is_better: bool = False


@dataclass(frozen=True)
class Problem:
    """A named source of cases.

    Attributes:
        name: what tables call it.
        make: a case from a seed, of start, data and noise.
        d: number of variables; None where nobody is to be left out for it.
        differentiable: whether the objective has a gradient, for those who take it.
    """

    name: str
    make: Callable[[int], Case]
    d: int | None = None
    differentiable: bool = False


@dataclass(frozen=True)
class Contestant:
    """An optimizer, and the settings among which it is tuned.

    Attributes:
        name: what tables call it.
        make: the optimizer, from the case's source, a setting, the budget and a seed.
        settings: what is tried for it; a contestant as shipped has one.
        cost: evaluations that one call of the objective counts as: more than one for a contestant
            that has more than its value of it.
        gradient: whether it takes the objective's gradient, and so only differentiable problems.
        limit: variables beyond which it is left out, where its work grows as their cube.
    """

    name: str
    make: Callable[[Any, Mapping[str, float], int, int], Steps]
    settings: tuple[Mapping[str, float], ...] = field(default_factory=lambda: ({},))
    cost: int = 1
    gradient: bool = False
    limit: int | None = None

    def takes(self, problem: Problem) -> bool:
        """Whether it takes part in a problem."""
        small = self.limit is None or problem.d is None or problem.d <= self.limit
        return small and (problem.differentiable or not self.gradient)


class _Spent(Exception):
    """The budget of evaluations is used up, perhaps in the middle of a step."""


def run(
    problem: Problem, contestant: Contestant, setting: Mapping[str, float], budget: int, seed: int
) -> dict[str, Any]:
    """One trial, as the row that is kept of it.

    Seconds are those spent in steps; scoring does not count. Memory is by how much the process's
    peak grew, and exact in a process of its own. A contestant that diverges or asks for more memory
    than there is ends with what it has; other exceptions are the caller's, and so is an arithmetic
    error that the case's own closure raises.

    Returns:
        ``score`` at the end, ``curve`` of (evaluations, score), ``evaluations``, ``forwards``,
        ``seconds``, ``peak_mb``, ``algorithm``, ``higher_is_better`` and ``stop``: "budget", or why
        it ended before.
    """
    torch.manual_seed(seed)
    case = problem.make(seed)
    sign = -1 if case.higher_is_better else 1
    evaluations = 0
    seconds = 0.0
    stop = "budget"
    optimizer: Steps | None = None
    raised: Exception | None = None

    def closure() -> Any:
        nonlocal evaluations, raised
        if evaluations + contestant.cost > budget:
            raise _Spent
        evaluations += contestant.cost
        try:
            return sign * case.closure()
        except Exception as error:
            raised = error
            raise

    def score() -> float:
        if optimizer is not None:
            optimizer.settle()
        with torch.no_grad():
            return float(case.score())

    curve = [(0, _rounded(score()))]
    before = _peak_mb()
    marks = sorted({round(budget ** ((k + 1) / CURVE_POINTS)) for k in range(CURVE_POINTS)})
    while evaluations < budget:
        started, before_step = time.perf_counter(), evaluations
        try:
            if optimizer is None:
                optimizer = contestant.make(case.source, setting, budget, seed)
            optimizer.step(closure)
        except _Spent:
            break
        except Exception as error:
            diverged = isinstance(error, DIVERGED) and error is not raised
            if not (diverged or _out_of_memory(error)):
                raise
            stop = f"{type(error).__name__} after {evaluations} evaluations"
            break
        finally:
            seconds += time.perf_counter() - started
        if evaluations == before_step:
            stop = f"finished after {evaluations} evaluations"
            break
        if marks and evaluations >= marks[0]:
            marks = [mark for mark in marks if mark > evaluations]
            curve.append((evaluations, _rounded(score())))
    final = score()
    return {
        "score": final,
        "curve": [*curve, (evaluations, _rounded(final))],
        "evaluations": evaluations,
        "forwards": evaluations * case.forwards,
        "seconds": seconds,
        "peak_mb": _peak_mb() - before,
        "algorithm": getattr(optimizer, "algorithm", contestant.name),
        "higher_is_better": case.higher_is_better,
        "stop": stop,
    }


def _rounded(score: float) -> float:
    """To what a curve can show, so that files stay small."""
    return float(f"{score:.6g}")


def _out_of_memory(error: Exception) -> bool:
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
