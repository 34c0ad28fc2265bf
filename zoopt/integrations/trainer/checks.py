"""What a Trainer's arguments say that ZOTrainer cannot do, or that has no meaning for it."""

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
        "there are several processes, which would draw the same directions for different batches "
        "and then drift apart: start one process",
    ),
    (
        lambda trainer: trainer.args.n_gpu > 1,
        "there are several GPUs, over which the Trainer spreads copies of the model: make one "
        "visible, for example with CUDA_VISIBLE_DEVICES=0",
    ),
    (
        lambda trainer: len({p.device for p in trainer.model.parameters()}) > 1,
        "the model's parameters are on several devices: load it without device_map='auto', on one",
    ),
    (
        lambda trainer: trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled,
        "DeepSpeed and FSDP shard gradients and optimizer states, which ZOTrainer does not have: "
        "disable them",
    ),
    (
        lambda trainer: trainer.args.fp16,
        "fp16=True scales gradients, which ZOTrainer does not have: take bf16=True, or load the "
        "model with dtype=torch.float16, which engine='overlay' tunes without drift",
    ),
)
"""What would go wrong in silence, and what to do instead."""


_WITHOUT_MEANING = ("max_grad_norm", "neftune_noise_alpha", "optim")


def refuse_rates(options: Mapping[str, Any]) -> None:
    """Raises TypeError for rates given as to ``zoopt.tune``, and says where they go."""
    given = [f"{name}={options[name]!r}" for name in ("lr", "eps") if name in options]
    if given:
        raise TypeError(
            f"ZOTrainer takes no {' and no '.join(given)}: write "
            "TrainingArguments(learning_rate=1e-6) and zo=zoopt.MeZO(eps=1e-3), with numbers. The "
            "search of lr='auto' and eps='auto' is zoopt.tune's: it prints what it finds, and "
            "auto.json in the run's folder has it"
        )


def refuse(trainer: Trainer) -> None:
    """Raises ValueError where a Trainer's setting cannot be kept."""
    for applies, why in _REFUSED:
        if applies(trainer):
            raise ValueError(f"ZOTrainer: {why}")


def warn_of_arguments(args: TrainingArguments) -> None:
    """Says which arguments have no meaning here, and which default is of another method."""
    defaults = {field.name: field.default for field in fields(TrainingArguments)}
    idle = [name for name in _WITHOUT_MEANING if getattr(args, name) != defaults[name]]
    if idle:
        log.warning(
            "%s: concerns gradients or their optimizers, so ZOTrainer ignores it (update=... "
            "chooses the update rule)",
            ", ".join(idle),
        )
    if args.learning_rate == defaults["learning_rate"]:
        log.warning(
            "learning_rate=%g is the default for AdamW. Published zeroth-order runs have 1e-7 to "
            "1e-6 for all parameters and 5e-5 to 1e-4 for LoRA; `zoopt recipes` lists them",
            args.learning_rate,
        )


def check_given(optimizer: Any, options: Mapping[str, Any], objective: TrainerObjective) -> None:
    """Refuses an optimizer that needs gradients, or contradicts the trainer's options.

    Args:
        optimizer: what the trainer was given in ``optimizers``; None if nothing.
        options: the trainer's own, of an optimizer that it would make.
        objective: the trainer's.

    Raises:
        ValueError: it is none of zoopt's, or options or the objective contradict it.
    """
    if optimizer is None:
        return
    if not isinstance(optimizer, ZOOptimizer):
        raise ValueError(
            f"ZOTrainer was given {type(optimizer).__name__}, which needs gradients: leave out "
            "optimizers=..., or make a zoopt.ZOOptimizer(model, ...)"
        )
    beside = [name for name, value in options.items() if value is not None]
    if beside:
        raise ValueError(
            f"{', '.join(beside)} would make another optimizer than the one in optimizers=...: "
            "give it to zoopt.ZOOptimizer instead"
        )
    if optimizer.maximize != objective.higher_is_better:
        raise ValueError(
            f"the given optimizer has maximize={optimizer.maximize}, but the objective "
            f"{objective.name!r} has higher_is_better={objective.higher_is_better}"
        )
