"""What a folder of trials was made of, so that another problem's trials are not taken for it."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import torch

from zoopt.bench.processes import Died, forked
from zoopt.bench.results import TUNING_SEED
from zoopt.bench.trial import Problem
from zoopt.parameters.selection import groups_of

_FILE = "problems.json"
_SAME = 1e-6
"""Relative difference up to which two numbers of a problem are the same."""

Facts = dict[str, float]


def require_same(folder: Path, problem: Problem) -> None:
    """Records what a problem is at its start, or compares it with what a folder has.

    Compared are the number of variables, and the objective and the score of a fresh case: a case is
    a function, whose code does not tell whether it is the same problem. What differs between two
    cases of the same seed is not compared.

    Raises:
        ValueError: they differ.
    """
    path = folder / _FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    now = _facts(problem)
    if problem.name not in known:
        folder.mkdir(parents=True, exist_ok=True)
        facts = json.dumps({**known, problem.name: now}, indent=1)
        path.write_text(facts + "\n", encoding="utf-8")
        return
    before = known[problem.name]
    differing = _differing(before, now)
    if differing:
        noise = _differing(now, _facts(problem))
        differing = [fact for fact in differing if fact not in noise]
    if differing:
        changes = ", ".join(
            f"{fact} {before[fact]:g} there, {now[fact]:g} now" for fact in differing
        )
        raise ValueError(
            f"{folder} has trials of another problem {problem.name!r} ({changes}, at the start): "
            "give another folder=... or name=..., or delete the folder"
        )


def _facts(problem: Problem) -> Facts:
    """A problem's facts, found in a process of their own, as its trials are made."""
    ((_, answer),) = forked([functools.partial(_measured, problem)])
    if isinstance(answer, Died):
        raise RuntimeError(f"evaluating the problem {problem.name!r} once failed: {answer}")
    facts: Facts = answer
    return facts


def _measured(problem: Problem) -> Facts:
    torch.manual_seed(TUNING_SEED)
    case = problem.make(TUNING_SEED)
    tensors = [tensor for group in groups_of(case.source) for _, tensor in group["params"]]
    with torch.no_grad():
        objective, score = float(case.closure()), float(case.score())
    return {
        "variables": sum(tensor.numel() for tensor in tensors),
        "objective": objective,
        "score": score,
    }


def _differing(one: Facts, other: Facts) -> list[str]:
    return [
        fact
        for fact, value in one.items()
        if not math.isclose(value, other[fact], rel_tol=_SAME)
        and not (math.isnan(value) and math.isnan(other[fact]))
    ]
