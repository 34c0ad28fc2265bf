"""The settings of a run; their docstrings are the texts of ``zoopt tune --help``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral
from typing import Any, Literal

from zoopt import registry
from zoopt.support.names import unknown
from zoopt.tuning.schedules import EPS_SCHEDULES, SCHEDULES

AUTO = "auto"
"""Value of lr or eps that lets the run find it; see :mod:`zoopt.tuning.search.auto`."""


_WHOLE = (
    "n", "n_final", "steps", "batch_size", "eval_every", "calibrate_on", "rollbacks", "patience",
    "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to tune.

    Args:
        objective: the number to optimize, by name (``zoopt list objectives``) or dotted path,
            optionally with arguments: "words(target=40)".
        estimator: gradient estimator (``zoopt list estimators``).
        estimator_options: further options of the estimator, as {clip: 100} for nspsa.
        n: directions per step; two-sided estimators evaluate two probes per direction. 0 uses the
            estimator's default.
        n_final: directions in the last step, to which n changes linearly; 0 keeps n.
        eps: perturbation scale of a probe, in units of the parameters; "auto" measures a suitable
            one for the model and the objective.
        eps_schedule: how eps changes: "constant", "linear" to a tenth, "power" (Spall's k^-0.101).
        direction: distribution of the directions (``zoopt list directions``); MeZO's paper has
            gaussian ones, which cost more.
        engine: how probes are evaluated; "auto" leaves it to the estimator.
        update: update rule (``zoopt list updates``).
        update_options: options of the update rule, as {beta: 0.5} for momentum.
        lr: initial learning rate; "auto" tries several for a third of the run each and continues
            the best trial.
        schedule: how the learning rate changes: "constant", "linear" or "cosine" to zero, or
            "power", Spall's (k + a)^-0.602.
        clip_ratio: clip the estimate's coefficients at this multiple of the running median of |c|;
            0 disables.
        rollbacks: how often a diverging run may go back and continue at half the learning rate.
        weight_decay: decoupled weight decay of tensors with two or more dimensions.
        params: name patterns of the parameters to tune; all trainable ones if empty.
        steps: number of updates.
        batch_size: training examples per step.
        eval_every: steps between evaluations on the development set, each a possible checkpoint.
        calibrate_on: number of training examples that set the calibrated baseline's class offsets.
        seed: seed of directions, batches and sampling.
        surrogate: smooth objective to start with; the objective's own variant if empty.
        surrogate_steps: steps over which its weight falls linearly from 1 to 0; 0 disables.
        patience: stop after this many evaluations in a row without a better development score; 0
            disables.
        sinks: where the metrics go besides metrics.jsonl: tensorboard, wandb, mlflow, csv.
    """

    objective: str = "accuracy"
    estimator: str = "mezo"
    estimator_options: Mapping[str, float] = field(default_factory=dict)
    n: int = 0
    n_final: int = 0
    eps: float | Literal["auto"] = 1e-3
    eps_schedule: str = "constant"
    direction: str = "rademacher"
    engine: str = "auto"
    update: str = "sgd"
    update_options: Mapping[str, float] = field(default_factory=dict)
    lr: float | Literal["auto"] = 1e-6
    schedule: str = "linear"
    clip_ratio: float = 10.0
    rollbacks: int = 5
    weight_decay: float = 0.0
    params: tuple[str, ...] | str = ()
    steps: int = 200
    batch_size: int = 16
    eval_every: int = 50
    calibrate_on: int = 400
    seed: int = 0
    surrogate: str = ""
    surrogate_steps: int = 0
    patience: int = 0
    sinks: tuple[str, ...] | str = ()

    def __post_init__(self) -> None:
        for name in ("params", "sinks"):
            chosen = getattr(self, name)
            one = isinstance(chosen, str) and bool(chosen)
            object.__setattr__(self, name, (chosen,) if one else tuple(chosen or ()))
        for name in _WHOLE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name}={value!r} must be a whole number")
            object.__setattr__(self, name, int(value))
        if not self.n:
            object.__setattr__(self, "n", registry.own_n(self.estimator))
        for name in ("n", "steps", "batch_size", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("n_final", "patience", "clip_ratio", "rollbacks"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}={getattr(self, name)} must be 0 (none) or more")
        for name in ("eps", "lr"):
            value = getattr(self, name)
            if value != AUTO and not (
                isinstance(value, float | int) and math.isfinite(value) and value > 0
            ):
                raise ValueError(f"{name}={value!r} must be a positive number, or {AUTO!r}")
        if self.surrogate and self.surrogate_steps < 1:
            raise ValueError(
                f"surrogate={self.surrogate!r} needs the number of steps to use it for: set, for "
                f"example, surrogate_steps={max(1, self.steps // 2)}"
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(unknown("schedule", self.schedule, SCHEDULES))
        if self.eps_schedule not in EPS_SCHEDULES:
            raise ValueError(unknown("eps_schedule", self.eps_schedule, EPS_SCHEDULES))

    @property
    def automatic(self) -> bool:
        """Whether lr or eps is "auto"."""
        return AUTO in (self.lr, self.eps)

    def lr_at(self, step: int) -> float:
        """The learning rate of an update, given the number of updates before it."""
        return float(self.lr) * SCHEDULES[self.schedule](step, self.steps)

    def eps_at(self, step: int) -> float:
        """The perturbation scale of a step's probes."""
        return float(self.eps) * EPS_SCHEDULES[self.eps_schedule](step, self.steps)

    def n_at(self, step: int) -> int:
        """The number of directions of a step."""
        if not self.n_final or self.steps == 1:
            return self.n
        return round(self.n + (self.n_final - self.n) * step / (self.steps - 1))

    def surrogate_share(self, step: int) -> float:
        """The surrogate's weight in the objective of a step."""
        return max(0.0, 1.0 - step / self.surrogate_steps) if self.surrogate_steps else 0.0


def plain(settings: Any) -> dict[str, Any]:
    """Converts settings to nested dicts of JSON types."""
    plain: dict[str, Any] = {}
    for name, value in asdict(settings).items():
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


def settings_from(given: Mapping[str, Any]) -> Settings:
    """Builds settings from keyword arguments; estimator, update and direction may be objects."""
    known = {f.name for f in fields(Settings)}
    for name in given:
        if name not in known:
            raise TypeError(unknown("setting", name, known))
    made = dict(given)
    if not isinstance(made.get("estimator", ""), str):
        estimator = registry.make_estimator(made["estimator"])
        made["estimator"], options = _by_name("estimator", estimator)
        further = {k: options.pop(k) for k in set(options) - known if options[k] is not None}
        made["estimator_options"] = {**further, **made.get("estimator_options", {})}
        made = {**{name: value for name, value in options.items() if name in known}, **made}
    if not isinstance(made.get("update", ""), str):
        made["update"], options = _by_name("update", made["update"])
        made["update_options"] = {**options, **made.get("update_options", {})}
    if not isinstance(made.get("direction", ""), str):
        made["direction"] = made["direction"].name
    if isinstance(made.get("params"), Mapping) or callable(made.get("params")):
        raise TypeError(
            "params of a run must be name patterns, since it has one lr and one eps: for groups "
            "with their own options, or predicates, use zoopt.ZOOptimizer or zoopt.ZOTrainer"
        )
    return Settings(**made)


def _by_name(axis: str, member: Any) -> tuple[str, dict[str, Any]]:
    """Returns a member's registered name and options, from which a resumed run rebuilds it."""
    options = registry.describe(member)
    name = options.pop("name")
    if name not in registry.ESTIMATORS and name not in registry.UPDATES:
        raise TypeError(
            f"{axis}={name} is of a class that is not registered, so a run with it could not be "
            "resumed or replayed; add it to zoopt/registry.py, or use zoopt.ZOOptimizer directly"
        )
    return name, options
