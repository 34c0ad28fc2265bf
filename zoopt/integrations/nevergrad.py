"""zoopt's estimators as nevergrad optimizers: importing this module registers them by name.

>>> import nevergrad as ng, zoopt.integrations.nevergrad
>>> optimizer = ng.optimizers.registry["ZooptSPSA"](parametrization=4, budget=200)
>>> found = optimizer.minimize(lambda x: ((x - 0.5) ** 2).sum())
>>> bool(((found.value - 0.5) ** 2).sum() < 1e-3)
True

``ZooptSPSA`` draws one direction a step and ``ZooptNSPSA`` four or more; both Rademacher, as in
Spall 1992. There is no ``ZooptMeZO``: what MeZO has over n-SPSA is memory, and nevergrad, which
keeps candidates, has no use for it. Other settings are one line, :class:`Zoopt`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from nevergrad.common import errors
from nevergrad.optimization import base

from zoopt import registry
from zoopt.engines import Copy
from zoopt.estimators import ZOEstimator
from zoopt.interfaces import Change, Displacement, GradientEstimate, Probe, Slot, UpdateStep
from zoopt.seeds import direction_seeds

PROBE = "zoopt"
"""Where a candidate's ``_meta`` says which probe it is: (step, number within the step)."""


class _UnknownLosses(Exception):
    """An estimator asked for probes whose losses have not been told yet."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self.probes = probes


class SeedSpaceOptimizer(base.Optimizer):  # type: ignore[misc]
    """A zoopt estimator and update rule behind nevergrad's ask and tell; made by :class:`Zoopt`.

    θ is a point of nevergrad's standardized space, in which the standard deviation is 1. An
    estimate follows from its losses alone (the contract in :mod:`zoopt.testing`), so the estimator
    is simply run with the losses told so far: it either asks for more probes, which become
    candidates, or returns ĝ, along which the update rule moves θ.

    Losses may be told in any order, and candidates be lost: when all probes of a step are asked and
    some are not told, the oldest of those is asked again. A step with a loss that is not finite (a
    violated constraint) does not move θ.
    """

    def __init__(
        self,
        parametrization: Any,
        budget: int | None = None,
        num_workers: int = 1,
        *,
        settings: Zoopt,
    ) -> None:
        super().__init__(parametrization, budget=budget, num_workers=num_workers)
        self.settings = settings
        self.estimator = settings.made(num_workers)
        self._penalize_cheap_violations = True
        self._seed: int | None = None
        self._theta = torch.zeros(self.dimension, dtype=torch.float64)
        self._slot = Slot(0, "theta", self._theta)
        self._direction = registry.make_direction(self.estimator.direction)
        self._direction.bind([self._slot])
        self._update = registry.make_update(settings.update)
        self._engine = Copy([self._slot], self._direction)
        self._state: dict[str, Any] = {}
        self._step = 0
        self._squares = 0.0

    def _begin(self) -> None:
        """Starts a step: its probes, none of them told."""
        self._losses: dict[int, float] = {}
        self._probes: list[Probe] = []
        self._waiting: list[int] = []
        self._estimate()

    def _estimate(self) -> GradientEstimate | None:
        """ĝ, or None where it takes losses that are not known: their probes are now to be asked."""
        known = 0

        def evaluate(probes: Sequence[Probe]) -> list[float]:
            nonlocal known
            first, known = known, known + len(probes)
            if known > len(self._losses):
                raise _UnknownLosses(probes)
            return [self._losses[number] for number in range(first, known)]

        assert self._seed is not None
        seeds = direction_seeds(self._seed, self._step, self.estimator.n)
        try:
            return self.estimator.estimate(evaluate, seeds, self.eps)
        except _UnknownLosses as asked:
            self._waiting = list(range(len(self._probes), len(self._probes) + len(asked.probes)))
            self._probes += asked.probes
            return None

    @property
    def eps(self) -> float:
        """ε_k = ε / (k + 1)^0.101 at step k, from 0 (Spall 1998)."""
        return float(self.estimator.eps / (self._step + 1) ** 0.101)

    def _internal_ask_candidate(self) -> Any:
        if self._seed is None:  # a user seeds the parametrization after making the optimizer
            self._seed = int(self._rng.randint(2**31))
            self._begin()
        number = self._waiting.pop(0)
        self._waiting.append(number)  # asked again only after all others
        point = self._theta.clone()
        self._direction.add_(Change.of(point, 0, self._probes[number].terms))
        candidate = self.parametrization.spawn_child().set_standardized_data(point.numpy())
        candidate._meta[PROBE] = self._step, number
        return candidate

    def _internal_tell_candidate(self, candidate: Any, loss: float) -> None:
        step, number = candidate._meta.get(PROBE, (None, None))
        if step != self._step or number in self._losses:
            return  # told before, or put in a probe's place by nevergrad's constraint solver
        self._losses[number] = float(loss)
        self._waiting.remove(number)
        if self._waiting:
            return
        estimate = self._estimate()
        if estimate is not None:
            self._move(estimate)
            self._step += 1
            self._begin()

    def _internal_tell_not_asked(self, candidate: Any, loss: float) -> None:
        raise errors.TellNotAskedNotSupportedError(
            f"{self.name} learns from its own probes alone: a loss at another point says nothing "
            "of the derivative along a direction that it drew"
        )

    def _move(self, estimate: GradientEstimate) -> None:
        squares = sum(c * c for c in estimate.coefficients)
        if not math.isfinite(squares) or max(estimate.losses) >= _CLIPPED or squares == 0:
            return
        self._squares += squares
        self._update.apply(
            UpdateStep(
                slots=[self._slot],
                gradient=Displacement((estimate.terms,)),
                lr=(self.settings.lr / math.sqrt(self._squares),),
                decay={0: 1.0},
                engine=self._engine,
                direction=self._direction,
                state=lambda slot: self._state,
            )
        )

    def _internal_provide_recommendation(self) -> Any:
        return self._theta.numpy().copy()


_CLIPPED = 5e20
"""What nevergrad makes of a loss that is infinite, NaN or larger."""


class Zoopt(base.ConfiguredOptimizer):  # type: ignore[misc]
    """A family of nevergrad optimizers: zoopt's estimators, directions and update rules.

    Functions come at every scale, and nevergrad's users give none, so the learning rate is that of
    AdaGrad-Norm (Ward, Wu and Bottou 2019, arXiv 1806.01811): η_k = lr / √(Σ_{i≤k} ‖c_i‖²), with
    the coefficients c_i of the estimates so far. The first step moves every coordinate by about lr,
    whatever the function is multiplied with; near a minimum η stays, under noise it falls as 1/√k.

    The defaults come from some trials by hand on functions of 20 variables (a sphere with and
    without noise, an ellipsoid, Rosenbrock's, Σ|x|), so figures on these say little.

    Args:
        estimator: which probes, by name. ``"nspsa"`` uses as many workers as there are.
        n: directions a step at least. With more than 2n workers, half of their number.
        direction: what z looks like.
        update: the update rule, by name.
        eps: ε of the first step, in nevergrad's standard deviations; it falls as k^−0.101.
        lr: how far the first step moves a coordinate, in the same unit.

    Example:
        >>> import nevergrad as ng
        >>> gaussian = Zoopt(estimator="nspsa", n=2, direction="gaussian", eps=1e-2)
        >>> optimizer = gaussian(parametrization=ng.p.Array(shape=(3,)), budget=50)
        >>> optimizer.ask().value.shape
        (3,)
    """

    def __init__(
        self,
        *,
        estimator: str = "spsa",
        n: int = 1,
        direction: str = "rademacher",
        update: str = "sgd",
        eps: float = 0.1,
        lr: float = 0.3,
    ) -> None:
        self.estimator = estimator
        self.n = n
        self.direction = direction
        self.update = update
        self.eps = eps
        self.lr = lr
        super().__init__(SeedSpaceOptimizer, dict(vars(self)), as_config=True)

    def made(self, num_workers: int) -> ZOEstimator:
        """The estimator for so many workers, with a warning where some of them have no use."""
        n = max(self.n, -(-num_workers // 2)) if self.estimator == "nspsa" else self.n
        made = registry.make_estimator(self.estimator, n=n, eps=self.eps, direction=self.direction)
        if num_workers > 2 * made.n:
            warnings.warn(
                f"{self.estimator} evaluates {2 * made.n} probes at a time, and has no use for "
                f"{num_workers} workers: ZooptNSPSA has",
                errors.InefficientSettingsWarning,
                stacklevel=2,
            )
        return made

    def __call__(
        self, parametrization: Any, budget: int | None = None, num_workers: int = 1
    ) -> SeedSpaceOptimizer:
        """An optimizer of this family, as nevergrad makes one."""
        made = SeedSpaceOptimizer(parametrization, budget, num_workers, settings=self)
        made.name = self.name
        return made


ZooptSPSA = Zoopt().set_name("ZooptSPSA", register=True)
ZooptNSPSA = Zoopt(estimator="nspsa", n=4).set_name("ZooptNSPSA", register=True)
