"""The contestants by name (:data:`NAMES`): zoopt's, other libraries', backpropagation.

Who is tuned has the same number of settings to try, evenly spaced in the logarithm.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from zoopt import baselines, registry
from zoopt.baselines.populations import SEARCHES
from zoopt.bench.ranges import Setting
from zoopt.bench.trial import Contestant, Steps
from zoopt.optimizer import ZOOptimizer
from zoopt.parameters.selection import groups_of
from zoopt.support.names import unknown

NAMES = {
    "spsa, mezo, nspsa:16, onesided:8": "zoopt, n behind its estimator; tuned: lr, two ε in turn",
    "spsa/rademacher": "the same with another direction",
    "nevergrad:NGOpt": "an optimizer of nevergrad's registry; tuned: its spread σ",
    "nevergrad:SPSA": "as shipped, with a = 1e-5 and c = 0.1 whatever the problem",
    "nevergrad:SPSA-tuned": "the same algorithm; tuned: a, two c in turn",
    "pycma, pycma-diagonal": "CMA-ES, and the separable one; tuned: σ",
    "evotorch:SNES": "PGPE, SNES or XNES; tuned: σ",
    "adamw": "backpropagation, a step of which counts as 3 evaluations; tuned: lr",
}
"""Patterns of names, and what each stands for."""

TUNING_TRIALS = 10
"""Settings that are tried for each contestant on each problem."""

BACKWARD_COST = 3
"""Forward passes that a forward and its backward pass count as."""

EPS = (1e-3, 3e-2)
"""The ε that an estimator's learning rates are tried with in turn."""

LIMITS = {"nevergrad:CMA": 2000, "pycma": 2000, "evotorch:XNES": 700}
"""Variables up to which those who keep a full covariance take part: their work grows as d³."""

WORST = 1e20
"""What a search of another library is told where the objective is not finite."""

SPSA_C = (0.1, 0.01)
"""The c, in standard deviations of the weights, that nevergrad's gains are tried with in turn."""

_IMPORTS = {"evotorch": "evotorch.algorithms", "nevergrad": "zoopt.integrations.nevergrad"}


def contestant(
    name: str,
    *,
    lr: tuple[float, float] = (1e-4, 1e1),
    sigma: tuple[float, float] = (1e-4, 1e1),
    a: tuple[float, float] = (1e-3, 1e4),
    eps: Sequence[float] = EPS,
    trials: int = TUNING_TRIALS,
    **options: Any,
) -> Contestant:
    """The contestant of a name; see the module.

    Args:
        name: one of the names above.
        lr: the lowest and the highest learning rate tried, for an estimator and for AdamW.
        sigma: the lowest and the highest spread tried, for a search.
        a: the lowest and the highest gain tried, for nevergrad's SPSA.
        eps: the ε that an estimator's learning rates are tried with in turn; one for all if there
            is one.
        trials: how many values are tried.
        options: ``params``, and for searches ``dimension`` and ``direction``.

    Raises:
        KeyError: nothing has that name.
        ImportError: the library that it is of is not installed.
    """
    head, _, rest = name.partition(":")
    selected = {key: value for key, value in options.items() if key == "params"}
    if head == "adamw":
        return Contestant(
            name, _adamw(selected), _grid("lr", lr, trials), cost=BACKWARD_COST, gradient=True
        )
    if head in ("pycma", "pycma-diagonal", "evotorch", "nevergrad"):
        _check(head, rest)
        settings = _grid("sigma", sigma, trials)
        if name == "nevergrad:SPSA":
            settings = ({"sigma": 1.0},)
        elif name == "nevergrad:SPSA-tuned":
            settings = _in_turn(_in_turn(_grid("a", a, trials), "c", SPSA_C), "sigma", (1.0,))
        make = _search(head, rest, options)
        return Contestant(name, make, settings, limit=LIMITS.get(name))
    settings = _in_turn(_grid("lr", lr, trials), "eps", eps)
    return Contestant(name, _ours(name, selected), settings)


Make = Callable[[Any, Setting, int, int], Steps]


def _ours(name: str, options: Mapping[str, Any]) -> Make:
    family, _, direction = name.partition("/")
    estimator, _, n = family.partition(":")
    if estimator not in registry.ESTIMATORS or (n and not n.isdecimal()):
        raise KeyError(f"no contestant is called {name!r}. There are: {'; '.join(NAMES)}")
    made = registry.make_estimator(estimator, **({"n": int(n)} if n else {}))

    def make(source: Any, setting: Setting, budget: int, seed: int) -> Steps:
        return ZOOptimizer(
            source,
            estimator=made,
            direction=direction or None,
            seed=seed,
            lr=setting["lr"],
            eps=setting["eps"],
            **options,
        )

    return make


def _check(library: str, name: str) -> None:
    """Imports the library, before trials fork, and tells of a name that it does not have."""
    importlib.import_module(_IMPORTS.get(library, "cma"))
    known: Iterable[str] = (name,)
    if library == "evotorch":
        known = SEARCHES
    elif library == "nevergrad":
        known = importlib.import_module("nevergrad").optimizers.registry
        name = name.removesuffix("-tuned")
    if name not in known:
        raise KeyError(unknown(f"optimizer of {library}", name, known))


class Bounded:
    """A search for which a value that is not finite is a bad one, and not the end."""

    def __init__(self, search: baselines.BlackBox | baselines.EvoTorch) -> None:
        self.search = search

    @property
    def algorithm(self) -> str:
        """What runs, by its own name."""
        return self.search.algorithm

    def step(self, closure: Callable[[], Any]) -> None:
        """A step of the search's."""

        def bounded() -> float:
            value = float(closure())
            return value if math.isfinite(value) else WORST

        self.search.step(bounded)

    def settle(self) -> None:
        """Writes the recommendation into θ."""
        self.search.settle()


def _search(library: str, name: str, options: Mapping[str, Any]) -> Make:
    def make(source: Any, setting: Setting, budget: int, seed: int) -> Steps:
        kept = {**options, "sigma": setting["sigma"], "seed": seed}
        if library == "nevergrad":
            constants = {key: value for key, value in setting.items() if key != "sigma"}
            kept |= {"budget": budget, "constants": constants}
            return Bounded(baselines.nevergrad(name.removesuffix("-tuned"), source, **kept))
        if library == "evotorch":
            return Bounded(baselines.evotorch(name, source, **kept))
        return Bounded(baselines.pycma(source, diagonal=library == "pycma-diagonal", **kept))

    return make


class BackPropagation:
    """AdamW on the closure's gradient."""

    algorithm = "torch.optim.AdamW"

    def __init__(self, source: Any, lr: float, **options: Any) -> None:
        groups = groups_of(source, **options)
        parameters = [parameter for group in groups for _, parameter in group["params"]]
        self.optimizer = torch.optim.AdamW(parameters, lr=lr)

    def step(self, closure: Callable[[], Any]) -> None:
        """A step along the gradient of one evaluation.

        Raises:
            FloatingPointError: the loss was NaN or infinite; θ is as it was.
        """
        self.optimizer.zero_grad()
        loss = closure()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss was {loss.item()}")
        loss.backward()
        self.optimizer.step()

    def settle(self) -> None:
        """θ is always exact."""


def _adamw(options: Mapping[str, Any]) -> Make:
    def make(source: Any, setting: Setting, budget: int, seed: int) -> Steps:
        return BackPropagation(source, setting["lr"], **options)

    return make


def _grid(name: str, ends: tuple[float, float], trials: int) -> tuple[Setting, ...]:
    values = np.geomspace(*ends, trials) if trials > 1 else [float(np.sqrt(ends[0] * ends[1]))]
    return tuple({name: float(f"{value:.3g}")} for value in values)


def _in_turn(
    settings: Sequence[Setting], name: str, values: Sequence[float]
) -> tuple[Setting, ...]:
    return tuple({**setting, name: values[k % len(values)]} for k, setting in enumerate(settings))
