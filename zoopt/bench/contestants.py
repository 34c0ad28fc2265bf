"""The contestants by name (:data:`NAMES`): zoopt's, other libraries', backpropagation.

Every contestant that is tuned tries the same number of settings, logarithmically spaced.
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
    "spsa, mezo, nspsa:16, onesided:8": "zoopt, as estimator:n; tuned: lr, with alternating ε",
    "spsa/rademacher": "the same with another direction",
    "nevergrad:NGOpt": "an optimizer of nevergrad's registry; tuned: its spread σ",
    "nevergrad:SPSA": "with nevergrad's constants a = 1e-5 and c = 0.1, untuned",
    "nevergrad:SPSA-tuned": "the same algorithm; tuned: a, with alternating c",
    "pycma, pycma-diagonal": "CMA-ES, and separable CMA-ES; tuned: σ",
    "evotorch:SNES": "PGPE, SNES or XNES; tuned: σ",
    "adamw": "backpropagation, whose steps count as 3 evaluations; tuned: lr",
}
"""Patterns of names, with descriptions."""

TUNING_TRIALS = 10
"""Number of settings tried for each contestant on each problem."""

BACKWARD_COST = 3
"""Number of forward passes that a forward and its backward pass count as."""

EPS = (1e-3, 3e-2)
"""The ε that alternate over an estimator's learning rates."""

LIMITS = {"nevergrad:CMA": 2000, "pycma": 2000, "evotorch:XNES": 700}
"""Maximum number of variables for searches with a full covariance, whose work grows as d³."""

WORST = 1e20
"""Value reported to other libraries' searches if the objective is not finite."""

SPSA_C = (0.1, 0.01)
"""The c, in standard deviations of the weights, that alternate over nevergrad's gains."""

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
    """Makes a contestant by name; see the module.

    Args:
        name: one of the names above.
        lr: the lowest and the highest learning rate tried, for an estimator and for AdamW.
        sigma: the lowest and the highest spread tried, for a search.
        a: the lowest and the highest gain tried, for nevergrad's SPSA.
        eps: the ε that alternate over an estimator's learning rates.
        trials: number of values tried.
        options: ``params``, and for searches ``dimension`` and ``direction``.

    Raises:
        KeyError: the name is unknown.
        ImportError: the contestant's library is not installed.
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
        raise KeyError(f"no contestant is called {name!r}. Available: {'; '.join(NAMES)}")
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
    """Imports a library before trials fork, and raises KeyError for a name it does not have."""
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
    """Wraps a search so that a non-finite value counts as a bad one instead of ending it."""

    def __init__(self, search: baselines.BlackBox | baselines.EvoTorch) -> None:
        self.search = search

    @property
    def algorithm(self) -> str:
        """Name of the algorithm that runs."""
        return self.search.algorithm

    def step(self, closure: Callable[[], Any]) -> None:
        """Makes a step of the search."""

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
        """Makes a step along the gradient of one evaluation.

        Raises:
            FloatingPointError: the loss was NaN or infinite; θ is unchanged.
        """
        self.optimizer.zero_grad()
        loss = closure()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss was {loss.item()}")
        loss.backward()
        self.optimizer.step()

    def settle(self) -> None:
        """Does nothing, since θ is always exact."""


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
