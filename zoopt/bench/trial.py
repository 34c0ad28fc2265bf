"""A trial: one contestant, with one setting and one seed, on one problem, within one budget."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from zoopt.interfaces import NonFiniteLossError

CURVE_POINTS = 24
"""Number of points, logarithmically spaced in evaluations, at which a trial is scored."""


DIVERGED = (ArithmeticError, np.linalg.LinAlgError)
"""Errors that mean divergence of a contestant; they include NonFiniteLossError."""

GROWN = (NonFiniteLossError, OverflowError)
"""Those that mean it also where the case's own closure raises them."""


class Steps(Protocol):
    """A contestant's optimizer, such as :class:`zoopt.ZOOptimizer` or your own."""

    def step(self, closure: Callable[[], Any]) -> Any:
        """Evaluates the closure one or more times and moves θ; does nothing if finished."""

    def settle(self) -> None:
        """Sets θ to the optimizer's recommendation."""


@dataclass
class Case:
    """An instance of a problem for one trial.

    Attributes:
        source: a fresh module or parameters.
        closure: the objective that optimizers see, with its noise and minibatches.
        score: the score for comparison, without noise, on held-out data.
        forwards: forward passes per evaluation of the objective.
        higher_is_better: for both; if True, optimizers minimize the objective's negative.
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
        name: its name in tables.
        make: makes a case from a seed for start, data and noise.
        d: number of variables; None disables contestants' limits.
        differentiable: whether the objective has a gradient, for contestants that need it.
    """

    name: str
    make: Callable[[int], Case]
    d: int | None = None
    differentiable: bool = False


@dataclass(frozen=True)
class Contestant:
    """An optimizer, and the settings among which it is tuned.

    Attributes:
        name: its name in tables.
        make: makes the optimizer from the case's source, a setting, the budget and a seed.
        settings: the settings to try; one for an untuned contestant.
        cost: evaluations that one call of the objective counts as: more than one for a contestant
            that uses more than its value.
        gradient: whether it needs the objective's gradient, and so a differentiable problem.
        limit: maximum number of variables, for contestants whose work grows as their cube.
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
    """Raised when the budget of evaluations is used up, possibly within a step."""


def run(
    problem: Problem, contestant: Contestant, setting: Mapping[str, float], budget: int, seed: int
) -> dict[str, Any]:
    """Runs one trial and returns its row.

    Seconds are those spent in steps, without scoring. Memory is the growth of the process's peak,
    which is exact if each trial has its own process. A contestant that diverges or runs out of
    memory ends with its current score; other exceptions are raised, also an arithmetic error of the
    case's own closure.

    Returns:
        ``score`` at the end, ``curve`` of (evaluations, score), ``evaluations``, ``forwards``,
        ``seconds``, ``peak_mb``, ``algorithm``, ``higher_is_better`` and ``stop``: "budget", or why
        it ended early.
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
            diverged = isinstance(error, DIVERGED if error is not raised else GROWN)
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
    """Rounds to six digits, which suffice for a curve, so that files stay small."""
    return float(f"{score:.6g}")


def _out_of_memory(error: Exception) -> bool:
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
