"""The optimizer that a run's settings describe."""

from __future__ import annotations

import torch

from zoopt import registry
from zoopt.estimators import ZOEstimator
from zoopt.optimizer import ZOOptimizer
from zoopt.parameters.masters import is_half
from zoopt.recipes import recipe_for
from zoopt.tuning.settings import AUTO, Settings


def make_optimizer(
    model: torch.nn.Module,
    settings: Settings,
    maximize: bool,
    estimator: ZOEstimator | None = None,
    decodes: bool = False,
) -> ZOOptimizer:
    """The optimizer that settings describe; rates that are still to be found are any.

    Args:
        model: what is tuned.
        settings: how.
        maximize: whether the objective is higher-is-better.
        estimator: takes the place of the settings' own.
        decodes: whether a probe generates texts. In half precision overlay, which is the engine
            otherwise, would perturb every matrix anew for each token, so it is copy.
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


def unusual_rate(model: torch.nn.Module, settings: Settings) -> str:
    """What to say of the default learning rate, where it is none for the model's adapter."""
    published = recipe_for(model)
    adapted = bool(getattr(model, "peft_config", {}))
    if not adapted or settings.lr != Settings.lr or settings.lr in published.lr:
        return ""
    rates = " or ".join(f"{rate:g}" for rate in published.lr)
    return (
        f"lr {settings.lr:g} is for all parameters of a model, and this one has an adapter: "
        f"published for one like it are lr {rates} with eps {published.eps:g} (zoopt recipes); "
        "lr='auto', eps='auto' find others"
    )
