"""Other libraries' optimizers on a torch model, stepped with the same closures as zoopt's.

>>> import torch, zoopt.baselines
>>> x = torch.nn.Parameter(torch.zeros(4))
>>> opt = zoopt.baselines.nevergrad("OnePlusOne", [x], budget=300, sigma=1.0)
>>> for _ in range(300):
...     value = opt.step(lambda: ((x - 1) ** 2).sum())
>>> opt.settle()
>>> bool(((x - 1) ** 2).sum() < 1e-2)
True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoopt.baselines.blackbox import BlackBox, Search
from zoopt.baselines.populations import EvoTorch
from zoopt.baselines.searches import Nevergrad, PyCMA

__all__ = ["BlackBox", "EvoTorch", "Search", "evotorch", "nevergrad", "pycma"]


def nevergrad(
    name: str,
    source: Any,
    *,
    budget: int | None = None,
    seed: int = 0,
    constants: Mapping[str, float] | None = None,
    **options: Any,
) -> BlackBox:
    """An optimizer from nevergrad on the parameters of a model, or on a subspace of them.

    Args:
        name: a name in ``nevergrad.optimizers.registry``. ``.search.algorithm`` is the algorithm
            it resolves to: NGOpt and others choose by d, budget and workers.
        source: a module, parameters or (name, parameter) pairs.
        budget: total number of evaluations.
        seed: seed of candidates and subspace.
        constants: attributes to set on it, ``{"a": 0.1, "c": 0.01}`` for its SPSA.
        options: ``params``, ``dimension``, ``direction``, ``sigma`` and ``maximize`` of
            :class:`BlackBox`.
    """
    return BlackBox(
        source, lambda d: Nevergrad(name, d, budget, seed, constants), seed=seed, **options
    )


def pycma(source: Any, *, diagonal: bool = False, seed: int = 0, **options: Any) -> BlackBox:
    """CMA-ES from pycma on the parameters of a model, or on a subspace of them.

    Args:
        source: a module, parameters or (name, parameter) pairs.
        diagonal: separable CMA-ES, for more than a few thousand dimensions.
        seed: seed of candidates and subspace.
        options: as for :func:`nevergrad`.
    """
    return BlackBox(source, lambda d: PyCMA(d, diagonal, seed), seed=seed, **options)


def evotorch(name: str, source: Any, *, seed: int = 0, **options: Any) -> EvoTorch:
    """A search from evotorch, ``"PGPE"``, ``"SNES"`` or ``"XNES"``; one population per step.

    Args:
        name: one of the above.
        source: a module, parameters or (name, parameter) pairs.
        seed: seed of candidates and subspace.
        options: ``params``, ``dimension``, ``direction``, ``sigma`` and ``maximize`` of
            :class:`BlackBox`.
    """
    return EvoTorch(name, source, seed=seed, **options)
