"""Builds the optimizer that a run's settings describe, and what makes steps with it."""

from __future__ import annotations

import torch

from zoopt import registry
from zoopt.estimators import ZOEstimator
from zoopt.objectives.metric import Metric
from zoopt.optimizer import ZOOptimizer
from zoopt.parameters.masters import is_half
from zoopt.recipes import recipe_for
from zoopt.tasks import Task
from zoopt.tuning.faults.fitting import Fitting
from zoopt.tuning.settings import AUTO, Settings
from zoopt.tuning.stepping import Stepper


def make_optimizer(
    model: torch.nn.Module,
    settings: Settings,
    maximize: bool,
    estimator: ZOEstimator | None = None,
    decodes: bool = False,
) -> ZOOptimizer:
    """Builds the optimizer that settings describe; rates that are "auto" are set to 1.

    Args:
        model: the model to tune.
        settings: the run's settings.
        maximize: whether the objective is higher-is-better.
        estimator: replaces the settings' estimator.
        decodes: whether a probe generates texts. In half precision the default engine is then
            copy, since overlay would perturb every matrix again for each token.
    """
    lr, eps = (1.0 if rate == AUTO else float(rate) for rate in (settings.lr, settings.eps))
    options = {"eps": eps, "direction": settings.direction, **settings.estimator_options}
    if settings.n_final:
        registry.make_estimator(settings.estimator, **options, n=settings.n_final)
    if estimator is None:
        estimator = registry.make_estimator(settings.estimator, **options, n=settings.n)
    engine = estimator.engine if settings.engine == "auto" else settings.engine
    if engine == "auto" and decodes and is_half(model.parameters()):
        engine = "copy"
    return ZOOptimizer(
        model,
        lr=lr,
        estimator=estimator,
        engine=engine,
        update=registry.make_update(settings.update, **settings.update_options),
        weight_decay=settings.weight_decay,
        params=settings.params or None,
        maximize=maximize,
        seed=settings.seed,
    )


def make_stepper(
    model: torch.nn.Module,
    task: Task,
    metric: Metric,
    settings: Settings,
    fitting: Fitting,
    estimator: ZOEstimator | None = None,
) -> Stepper:
    """Builds an optimizer for a task and an objective, and the stepper that makes its steps.

    Args:
        model: the model to tune.
        task: the examples, and how the model is evaluated on them.
        metric: the objective.
        settings: as for :func:`make_optimizer`.
        fitting: retries forwards that run out of memory.
        estimator: replaces the settings' estimator.
    """
    optimizer = make_optimizer(
        model, settings, metric.higher_is_better, estimator, decodes=task.gives == "texts"
    )
    return Stepper(model, task, metric, settings, optimizer, fitting)


def unusual_rate(model: torch.nn.Module, settings: Settings) -> str:
    """A warning if the default learning rate does not suit the model's adapter, else ""."""
    published = recipe_for(model)
    adapted = bool(getattr(model, "peft_config", {}))
    if not adapted or settings.lr != Settings.lr or settings.lr in published.lr:
        return ""
    rates = " or ".join(f"{rate:g}" for rate in published.lr)
    return (
        f"lr {settings.lr:g} is for tuning all parameters, but this model has an adapter: the "
        f"published rates for such adapters are lr {rates} with eps {published.eps:g} (zoopt "
        "recipes); lr='auto', eps='auto' search for others"
    )
