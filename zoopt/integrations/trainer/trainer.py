"""The Hugging Face Trainer with forward passes alone: ``zoopt.ZOTrainer``.

It overrides ``training_step``, which estimates a gradient instead of computing it, and
``create_optimizer``. The rest is the Trainer's own, including the call of ``optimizer.step()`` that
applies the estimate.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from zoopt.estimators import ZOEstimator
from zoopt.integrations.trainer.checks import check_given, refuse, refuse_rates, warn_of_arguments
from zoopt.integrations.trainer.faults import Forwards, Skips
from zoopt.integrations.trainer.log import RunLog
from zoopt.integrations.trainer.objectives import MicroBatches, trainer_objective
from zoopt.interfaces import Direction, GradientEstimate, NonFiniteLossError, UpdateRule
from zoopt.optimizer import ZOOptimizer
from zoopt.parameters.selection import Select
from zoopt.probes.population import Population
from zoopt.recipes import eps_of_parts, recipe_for
from zoopt.tuning.report.learning import silent_share

log = logging.getLogger("zoopt")


class ZOTrainer(Trainer):
    """A ``transformers.Trainer`` that needs no gradients: any model, any number as objective.

    Existing Trainer scripts work with the class name changed. Learning rate, schedule, weight decay
    and seed come from ``TrainingArguments``; a learning rate for AdamW is far too large for tuning
    all parameters (``zoopt recipes`` lists published ones). Each batch is evaluated at several
    probes; with gradient accumulation each probe sees all micro-batches. Models run in eval mode,
    without dropout.

    Besides the objective, the logs contain ``projected_gradient`` (the mean of |c|), ``silent``
    (the share of directions whose probes had the same value) and ``forwards`` (probes so far).

    A step whose objective is NaN or infinite is skipped, and counted as ``skipped_steps``; ten in a
    row raise :class:`zoopt.NonFiniteLossError`. If a micro-batch does not fit into memory, it is
    halved and the step repeated. See docs/faults.md.

    Each step is written to ``output_dir/trajectory.jsonl`` before it is applied, so that
    ``zoopt.replay(base_model, output_dir)`` can rebuild the tuned weights, and ``zoopt inspect``
    and ``zoopt diff`` can read the run. Unusually large estimates are clipped, as in
    :func:`zoopt.tune` (unless ``optimizers`` is given), and a warning is logged if the objective
    gets much worse.

    Args:
        *trainer_args: as for ``transformers.Trainer``.
        zo: the estimator, by name or as an object, such as ``zoopt.MeZO(eps=1e-3)``; by default
            that of the model's recipe, see :func:`zoopt.recipes.recipe_for`, where
            ``modules_to_save`` of an adapter get the ε for a model's own parameters.
        objective: ``"loss"``, the model's; ``"compute_metrics"``, the entry of its dict that
            ``metric_for_best_model`` names; or any objective of :func:`zoopt.tune`.
        direction: distribution of z; overrides the estimator's.
        engine: how probes are evaluated; overrides the estimator's.
        update: the update rule, by name or as an object; SGD by default.
        params: the parameters to tune, as for :class:`zoopt.ZOOptimizer`.
        **trainer_options: as for ``transformers.Trainer``. ``optimizers`` may hold a
            :class:`zoopt.ZOOptimizer` instead of the options above. (To tune the scales of a
            quantized model, write a loop: transformers trains it only with adapters. See
            docs/precision.md.)

    Raises:
        TypeError: ``lr`` or ``eps`` is given, which are set elsewhere.
        ValueError: several processes or devices, fp16, or options that exclude each other.
    """

    def __init__(
        self,
        *trainer_args: Any,
        zo: str | ZOEstimator | None = None,
        objective: Any = "loss",
        direction: str | Direction | None = None,
        engine: str | None = None,
        update: str | UpdateRule | None = None,
        params: Select = None,
        **trainer_options: Any,
    ) -> None:
        refuse_rates(trainer_options)
        super().__init__(*trainer_args, **trainer_options)
        refuse(self)
        self.zo_objective = trainer_objective(objective, self)
        self._options: dict[str, Any] = {
            "zo": zo,
            "direction": direction,
            "engine": engine,
            "update": update,
            "params": params,
        }
        self._micro_batches: list[Any] = []
        self._said: list[tuple[float, float, float]] = []
        self._skips, self._forwards = Skips(), Forwards()
        self._run_log = RunLog(cuts=self.optimizer is None)
        self._resumed: str | None = None
        self.add_callback(_Course(self))
        check_given(self.optimizer, self._options, self.zo_objective)
        warn_of_arguments(self.args)

    @property
    def zo_optimizer(self) -> ZOOptimizer:
        """The optimizer without accelerate's wrapper."""
        made: Any = self.optimizer
        optimizer: ZOOptimizer = getattr(made, "optimizer", made)
        return optimizer

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Creates a :class:`zoopt.ZOOptimizer` over the model, unless one was given."""
        if self.optimizer is None:
            tuned: Any = self.model if model is None else model
            chosen = {name: value for name, value in self._options.items() if value is not None}
            zo = chosen.pop("zo", None)
            if zo is None:
                zo = recipe_for(tuned).estimator()
                chosen.setdefault("params", eps_of_parts(tuned))
            self.optimizer = ZOOptimizer(
                tuned,
                estimator=zo,
                lr=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                maximize=self.zo_objective.higher_is_better,
                seed=self.args.seed,
                share_prefix=not self.args.torch_compile,
                **chosen,
            )
        engine = self.zo_optimizer.engine
        if engine.takes_population and not self.zo_objective.takes_population:
            raise ValueError(
                f"engine={engine.name!r} evaluates several probes in one forward, whose loss is "
                "one number for all of them: tune a metric of the predictions, such as "
                "objective='cross_entropy' for a classifier, or use engine='overlay'"
            )
        return self.optimizer

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Estimates the gradient at the step's last micro-batch; the Trainer then updates."""
        self._micro_batches.append(self._prepare_inputs(inputs))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        batches, self._micro_batches = self._micro_batches, []
        try:
            self._run_log.before(self.zo_optimizer)
            value = self._forwards(batches, functools.partial(self._estimate, model))
        except NonFiniteLossError as error:
            self._skips.skip(error, self.state.global_step)
            return torch.tensor(math.nan, device=self.args.device)
        self._skips.made()
        self._run_log.after(self.zo_optimizer)
        if self._is_watched():
            self.zo_optimizer.settle()
        coefficients = self._estimated().coefficients
        self._said.append((value, sum(map(abs, coefficients)), silent_share(coefficients)))
        return torch.tensor(value, device=self.args.device)

    def _estimate(self, model: torch.nn.Module, batches: MicroBatches) -> float:
        def values(probes: Population) -> list[float]:
            with self.compute_loss_context_manager():
                return self.zo_objective.values(self, model, batches, probes)

        return self.zo_optimizer.estimate(values)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As ``Trainer.train``; however it ends, no perturbation is left in the weights."""
        if resume_from_checkpoint is True:
            last = get_last_checkpoint(str(self.args.output_dir))  # type: ignore[no-untyped-call]
            resume_from_checkpoint = last or True  # True raises
        self._resumed = str(resume_from_checkpoint) if resume_from_checkpoint else None
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self._micro_batches.clear()
            self._said.clear()
            if self.optimizer is not None:
                self.zo_optimizer.settle()
                self._run_log.close(self.zo_optimizer)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As ``Trainer.log``, with statistics of the estimates since the last call."""
        if "loss" in logs and (self._said or self._skips.lately):
            logs.pop("grad_norm", None)  # there are no gradients
            values, magnitudes, silent = zip(*self._said, strict=True) if self._said else ((),) * 3
            if self._skips.lately:  # the Trainer's mean includes skipped steps
                logs["loss"] = _mean(values)
            if self.zo_objective.name != "loss":
                logs[self.zo_objective.name] = logs.pop("loss")
            if self._said:
                logs["projected_gradient"], logs["silent"] = _mean(magnitudes), _mean(silent)
            logs["forwards"] = self.zo_optimizer.steps * len(self._estimated().losses)
            if self._skips.total:
                logs["skipped_steps"] = self._skips.total
            self._said.clear()
            self._skips.lately = 0
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Counts one forward per probe; the Trainer counts one forward and its backward pass."""
        return int(super().floating_point_ops(inputs)) // 3 * len(self._estimated().losses)

    def _estimated(self) -> GradientEstimate:
        """The last estimate; an empty one before the first."""
        return self.zo_optimizer.estimated or GradientEstimate((), (), ())

    def _is_watched(self) -> bool:
        """Whether a callback may see the model before the update, while θ is perturbed."""
        own = TrainerCallback.on_pre_optimizer_step
        return any(
            getattr(callback.on_pre_optimizer_step, "__func__", None) is not own
            for callback in self.callback_handler.callbacks
            if not isinstance(callback, _Course)
        )


class _Course(TrainerCallback):
    """Notifies a trainer of the beginning of training and of checkpoints; skips steps."""

    def __init__(self, trainer: ZOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        trainer, optimizer = self._trainer, self._trainer.zo_optimizer
        trainer._run_log.begin(optimizer, trainer.model, args, state, trainer._resumed)
        if not optimizer.steps:  # save_only_model: do not draw directions of earlier steps again
            optimizer.steps = state.global_step
        trainer._skips.begin(max(0, state.global_step - optimizer.steps))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._trainer._skips.skipping:
            # accelerate's optimizer then makes no step, and the Trainer continues as after one.
            self._trainer.accelerator.gradient_state._set_sync_gradients(False)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if folder.is_dir():
            self._trainer._run_log.mark(folder)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
