"""Checks for Trainer arguments that ZOTrainer does not support or ignores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from transformers import Trainer, TrainingArguments

from zoopt.integrations.trainer.objectives import TrainerObjective
from zoopt.optimizer import ZOOptimizer

log = logging.getLogger("zoopt")

_REFUSED: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (
        lambda trainer: trainer.args.world_size > 1,
        "several processes would use the same directions with different batches and diverge: "
        "start one process",
    ),
    (
        lambda trainer: trainer.args.n_gpu > 1,
        "the Trainer would copy the model to several GPUs: make only one visible, for example with "
        "CUDA_VISIBLE_DEVICES=0",
    ),
    (
        lambda trainer: len({p.device for p in trainer.model.parameters()}) > 1,
        "the model's parameters are on several devices: load it on one, without device_map='auto'",
    ),
    (
        lambda trainer: trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled,
        "DeepSpeed and FSDP shard gradients and optimizer states, which ZOTrainer does not have: "
        "disable them",
    ),
    (
        lambda trainer: trainer.args.fp16,
        "fp16=True scales gradients, which ZOTrainer does not have: use bf16=True, or load the "
        "model with dtype=torch.float16, which engine='overlay' tunes without drift",
    ),
)
"""Settings that would fail silently, and what to do instead."""


_WITHOUT_MEANING = ("max_grad_norm", "neftune_noise_alpha", "optim")


def refuse_rates(options: Mapping[str, Any]) -> None:
    """Raises TypeError for ``lr`` and ``eps``, which ZOTrainer takes by other arguments."""
    given = [f"{name}={options[name]!r}" for name in ("lr", "eps") if name in options]
    if given:
        raise TypeError(
            f"ZOTrainer takes no {' and no '.join(given)}: use "
            "TrainingArguments(learning_rate=1e-6) and zo=zoopt.MeZO(eps=1e-3), with numbers. Only "
            "zoopt.tune searches for rates (lr='auto', eps='auto'): it prints them, and writes "
            "them to auto.json in the run's folder"
        )


def refuse(trainer: Trainer) -> None:
    """Raises ValueError for settings that ZOTrainer does not support."""
    for applies, why in _REFUSED:
        if applies(trainer):
            raise ValueError(f"ZOTrainer: {why}")


def warn_of_arguments(args: TrainingArguments) -> None:
    """Warns of arguments that are ignored, and of the default learning rate, meant for AdamW."""
    defaults = {field.name: field.default for field in fields(TrainingArguments)}
    idle = [name for name in _WITHOUT_MEANING if getattr(args, name) != defaults[name]]
    if idle:
        log.warning(
            "%s: applies to gradients or their optimizers and is ignored by ZOTrainer (update=... "
            "chooses the update rule)",
            ", ".join(idle),
        )
    if args.learning_rate == defaults["learning_rate"]:
        log.warning(
            "learning_rate=%g is the default for AdamW. Published zeroth-order runs use 1e-7 to "
            "1e-6 for all parameters and 5e-5 to 1e-4 for LoRA; `zoopt recipes` lists them",
            args.learning_rate,
        )


def check_given(optimizer: Any, options: Mapping[str, Any], objective: TrainerObjective) -> None:
    """Refuses an optimizer that needs gradients, or contradicts the trainer's options.

    Args:
        optimizer: the optimizer given in ``optimizers``, or None.
        options: the trainer's options for making its own optimizer.
        objective: the trainer's objective.

    Raises:
        ValueError: it is not a ZOOptimizer, or the options or the objective contradict it.
    """
    if optimizer is None:
        return
    if not isinstance(optimizer, ZOOptimizer):
        raise ValueError(
            f"ZOTrainer got {type(optimizer).__name__}, which needs gradients: omit "
            "optimizers=..., or pass a zoopt.ZOOptimizer(model, ...)"
        )
    beside = [name for name, value in options.items() if value is not None]
    if beside:
        raise ValueError(
            f"{', '.join(beside)} cannot be combined with optimizers=...: pass it to "
            "zoopt.ZOOptimizer instead"
        )
    if optimizer.maximize != objective.higher_is_better:
        raise ValueError(
            f"the given optimizer has maximize={optimizer.maximize}, but the objective "
            f"{objective.name!r} has higher_is_better={objective.higher_is_better}"
        )
