"""zoopt's estimators as nevergrad optimizers; importing this module registers them.

>>> import nevergrad as ng, zoopt.integrations.nevergrad
>>> optimizer = ng.optimizers.registry["ZooptSPSA"](parametrization=4, budget=200)
>>> found = optimizer.minimize(lambda x: ((x - 0.5) ** 2).sum())
>>> bool(((found.value - 0.5) ** 2).sum() < 1e-3)
True

``ZooptSPSA`` draws one direction per step and ``ZooptNSPSA`` four or more; both Rademacher, as in
Spall 1992. There is no ``ZooptMeZO``: its advantage over n-SPSA is memory, which nevergrad cannot
use since it stores candidates. For other settings, see :class:`Zoopt`.
"""

from __future__ import annotations

import math
import statistics
import warnings
from typing import Any

import torch
from nevergrad.common import errors
from nevergrad.optimization import base

from zoopt import registry
from zoopt.engines import Copy
from zoopt.estimators import ZOEstimator
from zoopt.estimators.pending import PendingEstimate
from zoopt.interfaces import Change, Displacement, GradientEstimate, Probe, Slot, UpdateStep
from zoopt.seeds import direction_seeds

PROBE = "zoopt"
"""Key in a candidate's ``_meta`` that identifies its probe: (draw, number within the draw)."""

CLIPPED = 5e20
"""Value to which nevergrad clips a loss that is infinite, NaN or larger."""

HALVINGS = 20
"""Maximum number of times that a draw's ε is halved until its probes are feasible."""

SHARES = (0.5, 0.25, 0.125, 0.0)
"""Shares of a move, tried in this order while θ is not feasible."""

WIDEST = 10.0
"""Standard deviations up to which ε is doubled while the first steps find no difference."""


class SeedSpaceOptimizer(base.Optimizer):  # type: ignore[misc]
    """A zoopt estimator and update rule behind nevergrad's ask and tell; made by :class:`Zoopt`.

    θ is a point of nevergrad's standardized space, in which the standard deviation is 1. The probes
    of a :class:`~zoopt.estimators.pending.PendingEstimate` become candidates, and the update rule
    moves θ along the estimate once their losses are told.

    Losses may be told in any order, and candidates may be lost: when all probes of a step have been
    asked and some losses are missing, the oldest of these probes is asked again. A step with a loss
    that is not finite does not move θ.

    θ satisfies nevergrad's cheap constraints: ε is halved until a step's probes are feasible, and a
    move until θ is; if an eighth of it is still infeasible, the move is skipped. If consecutive
    steps have equal losses before θ first moves, as with parameters rounded to integers, ε is
    doubled.

    θ starts at the best point that was told without being asked, such as a suggestion or the result
    of the previous optimizer of a ``Chaining``. Such points are ignored once θ has moved.

    The recommendation is θ, or the best point told if the mean loss of the last step is above that
    of the first.
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
        self._draw = -1
        self._step = 0
        self._first_eps = float(self.estimator.eps)
        self._squares = 0.0
        self._plateau: tuple[float, ...] = ()
        self._best_told = CLIPPED
        self._first_loss = self._last_loss = -math.inf

    def _begin(self) -> None:
        """Draws directions and plans their probes, at ε / (k + 1)^0.101 or less (Spall 1998)."""
        self._draw += 1
        self._eps = self._first_eps / (self._step + 1) ** 0.101
        self._plan()
        if not self._feasible(self._theta):
            return
        for _ in range(HALVINGS):
            probes = self._pending.probes
            inside = [point for point in map(self._point, probes) if self._feasible(point)]
            if len(inside) == len(probes):
                return
            self._eps /= 2
            self._plan()
        if inside:  # θ is on the boundary itself
            self._theta.copy_(inside[-1])

    def _plan(self) -> None:
        assert self._seed is not None
        seeds = direction_seeds(self._seed, self._draw, self.estimator.n)
        self._pending = PendingEstimate(self.estimator, seeds, self._eps)

    def _point(self, probe: Probe) -> torch.Tensor:
        point = self._theta.clone()
        self._direction.add_(Change.of(point, 0, probe.terms))
        return point

    def _candidate(self, point: torch.Tensor) -> Any:
        return self.parametrization.spawn_child().set_standardized_data(point.numpy())

    def _feasible(self, point: torch.Tensor) -> bool:
        """Whether a point satisfies the cheap constraints, if there are any."""
        return bool(self.skip_constraints or self._candidate(point).satisfies_constraints())

    def _internal_ask_candidate(self) -> Any:
        if self._seed is None:  # a user seeds the parametrization after making the optimizer
            self._seed = int(self._rng.randint(2**31))
            self._begin()
        number = self._pending.ask()
        candidate = self._candidate(self._point(self._pending.probes[number]))
        candidate._meta[PROBE] = self._draw, number
        return candidate

    def _internal_tell_candidate(self, candidate: Any, loss: float) -> None:
        if PROBE not in candidate._meta:  # nevergrad's constraint solver replaced a probe
            self._internal_tell_not_asked(candidate, loss)
            return
        draw, number = candidate._meta[PROBE]
        if draw != self._draw:
            return
        if loss == math.inf:  # from ask, for a violated constraint: tell clips the users' losses
            self._begin()
            return
        self._pending.tell(number, float(loss))
        if self._pending.result is not None:
            self._move(self._pending.result)
            self._step += 1
            self._begin()

    def _internal_tell_not_asked(self, candidate: Any, loss: float) -> None:
        point = candidate.get_standardized_data(reference=self.parametrization)
        point = torch.as_tensor(point, dtype=torch.float64)
        if self._squares == 0 and loss < self._best_told and self._feasible(point):
            self._best_told = loss
            self._theta.copy_(point)
            if self._seed is not None:
                self._begin()

    def _move(self, estimate: GradientEstimate) -> None:
        squares = sum(c * c for c in estimate.coefficients)
        if not math.isfinite(squares) or max(estimate.losses) >= CLIPPED:
            return
        if squares == 0:
            if self._squares == 0 and self._plateau == estimate.losses and self._first_eps < WIDEST:
                self._first_eps *= 2
            self._plateau = estimate.losses
            return
        self._last_loss = statistics.fmean(estimate.losses)
        if self._squares == 0:
            self._first_loss = self._last_loss
        self._squares += squares
        before = self._theta.clone()
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
        whole = self._theta - before
        for share in SHARES:
            if self._feasible(self._theta):
                break
            self._theta.copy_(before + share * whole)

    def _internal_provide_recommendation(self) -> Any:
        return None if self._last_loss > self._first_loss else self._theta.numpy().copy()


class Zoopt(base.ConfiguredOptimizer):  # type: ignore[misc]
    """A family of nevergrad optimizers: zoopt's estimators, directions and update rules.

    The scale of the function is unknown, so the learning rate is that of AdaGrad-Norm (Ward, Wu and
    Bottou 2019, arXiv 1806.01811): η_k = lr / √(Σ_{i≤k} ‖c_i‖²), with the coefficients c_i of the
    estimates so far. The first step moves every coordinate by about lr, independent of the
    function's scale; near a minimum η stays constant, under noise it falls as 1/√k.

    The defaults were tuned by hand on functions of 20 variables (a sphere with and without noise,
    an ellipsoid, Rosenbrock's, Σ|x|), so results on these are biased.

    Args:
        estimator: name of the estimator. ``"nspsa"`` uses all workers.
        n: minimum number of directions per step. With more than 2n workers, half their number.
        direction: distribution of z.
        update: name of the update rule.
        eps: ε of the first step, in nevergrad's standard deviations; it falls as k^−0.101.
        lr: distance by which the first step moves a coordinate, in the same unit.

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
        """Makes the estimator for a number of workers; warns if it cannot use all of them."""
        n = max(self.n, -(-num_workers // 2)) if self.estimator == "nspsa" else self.n
        made = registry.make_estimator(self.estimator, n=n, eps=self.eps, direction=self.direction)
        together = len(PendingEstimate(made, range(made.n), made.eps).waiting)
        if num_workers > together:
            warnings.warn(
                f"{self.estimator} evaluates {together} probes at a time, so it cannot use "
                f"{num_workers} workers: take ZooptNSPSA to use all",
                errors.InefficientSettingsWarning,
                stacklevel=2,
            )
        return made

    def __call__(
        self, parametrization: Any, budget: int | None = None, num_workers: int = 1
    ) -> SeedSpaceOptimizer:
        """Makes an optimizer of this family, as nevergrad requires."""
        made = SeedSpaceOptimizer(parametrization, budget, num_workers, settings=self)
        made.name = self.name
        return made


ZooptSPSA = Zoopt().set_name("ZooptSPSA", register=True)
ZooptNSPSA = Zoopt(estimator="nspsa", n=4).set_name("ZooptNSPSA", register=True)
