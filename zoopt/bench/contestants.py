"""The contestants by name: zoopt's estimators, nevergrad's optimizers and pycma's.

``"spsa"``, ``"nspsa:16"``, ``"mezo"`` (with ``"/rademacher"`` behind it for another direction),
``"nevergrad:NGOpt"``, ``"pycma"`` and ``"pycma-diagonal"``. All are tuned alike: over
``TUNING_TRIALS`` values of the one number that matters most to each, evenly spaced in its
logarithm: the learning rate of an estimator, the spread σ of a search.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoopt import baselines, registry
from zoopt.bench.trial import Contestant, Steps
from zoopt.optimizer import ZOOptimizer

TUNING_TRIALS = 6
"""Settings that are tried for each contestant on each problem."""


def contestant(
    name: str,
    *,
    lr: tuple[float, float] = (1e-4, 1e0),
    sigma: tuple[float, float] = (1e-3, 1e0),
    eps: float = 1e-3,
    trials: int = TUNING_TRIALS,
    **options: Any,
) -> Contestant:
    """The contestant of a name; see the module.

    Args:
        name: one of the names above.
        lr: the lowest and the highest learning rate tried, for an estimator.
        sigma: the lowest and the highest spread tried, for a search.
        eps: an estimator's ε.
        trials: how many values are tried.
        options: ``params``, and for searches ``dimension`` and ``direction``.
    """
    head, _, rest = name.partition(":")
    if head in ("nevergrad", "pycma", "pycma-diagonal"):
        settings = _grid("sigma", sigma, trials)
        importlib.import_module("nevergrad" if head == "nevergrad" else "cma")

        def search(source: Any, setting: Mapping[str, float], budget: int, seed: int) -> Steps:
            chosen = {**setting, **options}
            if head == "nevergrad":
                return baselines.nevergrad(rest, source, budget=budget, seed=seed, **chosen)
            diagonal = head == "pycma-diagonal"
            return baselines.pycma(source, diagonal=diagonal, seed=seed, **chosen)

        return Contestant(name, search, settings)
    family, _, direction = name.partition("/")
    estimator, _, n = family.partition(":")
    kept = {key: value for key, value in options.items() if key == "params"}
    named = {"n": int(n)} if n else {}
    made = registry.make_estimator(estimator, eps=eps, **named)

    def ours(source: Any, setting: Mapping[str, float], budget: int, seed: int) -> Steps:
        return ZOOptimizer(
            source,
            lr=setting["lr"],
            estimator=made,
            direction=direction or None,
            seed=seed,
            **kept,
        )

    return Contestant(name, ours, _grid("lr", lr, trials))


def _grid(name: str, ends: tuple[float, float], trials: int) -> tuple[Mapping[str, float], ...]:
    values = np.geomspace(*ends, trials) if trials > 1 else [float(np.sqrt(ends[0] * ends[1]))]
    return tuple({name: float(f"{value:.3g}")} for value in values)
