"""Objectives of a Trainer's minibatch: the model's own loss, or a metric of its predictions.

Either is one number for all micro-batches of a gradient accumulation, as if they were one batch:
the loss is the mean over all items (tokens or examples), and predictions are collected and scored
once.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import EvalLoopContainer, find_batch_size

from zoopt.objectives.conventions import metric
from zoopt.objectives.forms import each_of
from zoopt.objectives.metric import Metric, for_each
from zoopt.objectives.resolve import resolve
from zoopt.probes.closure import warn_of_half
from zoopt.probes.population import Population
from zoopt.tasks.objective import TAKEN, as_needed

MicroBatches = Sequence[Any]
"""Outputs of the data collator: dicts of model inputs, on the model's device."""

_TAKEN = {*TAKEN["class scores"], *TAKEN["values"]}

_NOT_GIVEN = {
    "batch_eval_metrics": "a step has all its predictions at once, and calls compute_metrics once "
    "per probe, without compute_result",
    "include_for_metrics": "a step passes only predictions and labels to compute_metrics",
}
"""Unsupported settings that change the arguments of ``compute_metrics``, and why."""

_ERRORS = frozenset(
    {"cer", "distance", "err", "error", "mae", "mse", "perplexity", "ppl", "rmse", "ter", "wer"}
)
"""Words in names of metrics that are lower-is-better."""


class TrainerObjective(Protocol):
    """An objective that is evaluated on micro-batches.

    Attributes:
        name: its name in logs.
        higher_is_better: whether it is maximized.
        takes_population: whether several probes can share a forward.
    """

    name: str
    higher_is_better: bool
    takes_population: bool

    def values(
        self, trainer: Trainer, model: torch.nn.Module, batches: MicroBatches, probes: Population
    ) -> list[float]:
        """Returns the objective for each probe."""


class ModelLoss:
    """The value of ``Trainer.compute_loss``: the model's loss, or ``compute_loss_func``'s."""

    name = "loss"
    higher_is_better = False
    takes_population = False

    def values(
        self, trainer: Trainer, model: torch.nn.Module, batches: MicroBatches, probes: Population
    ) -> list[float]:
        """Returns the mean loss over all items.

        A model that uses ``num_items_in_batch`` divides by it; others return the mean over their
        inputs. With the count of its own micro-batch, either returns a mean.
        """
        counted = [trainer.get_batch_samples(iter([b]), 1, trainer.args.device)[1] for b in batches]
        weights = [
            float(rows_of(inputs)) if items is None else float(items)
            for inputs, items in zip(batches, counted, strict=True)
        ]
        value = 0.0 if any(weights) else math.nan
        for inputs, items, weight in zip(batches, counted, weights, strict=True):
            if weight:
                # A copy, since label smoothing removes the labels.
                loss: Any = trainer.compute_loss(model, copy.copy(inputs), num_items_in_batch=items)
                warn_of_half(loss)
                value += float(loss) * (weight / sum(weights))
        return [value]


class PredictionMetric:
    """A metric of ``Trainer.prediction_step``'s predictions, computed as in an evaluation.

    Args:
        metric: scores the predictions.

    Raises:
        ValueError: it needs inputs other than scores, such as generated texts.
    """

    takes_population = True

    def __init__(self, metric: Metric) -> None:
        for needs in each_of(metric.needs):
            if needs not in _TAKEN:
                raise ValueError(
                    f"objective {metric.name!r} takes {needs}, but a Trainer's predictions are "
                    "scores: convert them in compute_metrics and use "
                    "objective='compute_metrics', or use a task and zoopt.tune"
                )
        self.metric = metric
        self.name = metric.name
        self.higher_is_better = metric.higher_is_better

    def values(
        self, trainer: Trainer, model: torch.nn.Module, batches: MicroBatches, probes: Population
    ) -> list[float]:
        """Returns the metric of each probe's predictions on all micro-batches together."""
        said: list[Any] = [EvalLoopContainer() for _ in range(probes.size)]
        references: Any = EvalLoopContainer()
        for inputs in batches:
            predicted: tuple[Any, Any, Any] = trainer.prediction_step(
                model, _for_all(inputs, probes), False
            )
            _, scores, labels = predicted
            if labels is None:
                raise ValueError(
                    f"objective {self.name!r} needs labels, but a batch has only "
                    f"{', '.join(map(repr, inputs))}: set the labels' names with "
                    "TrainingArguments(label_names=[...])"
                )
            if trainer.preprocess_logits_for_metrics is not None:
                scores = trainer.preprocess_logits_for_metrics(scores, labels)
            for probe, container in enumerate(said):
                container.add(_of_probe(scores, probes, probe))
            references.add(_of_probe(labels, probes, 0))
        compared = references.get_arrays()
        return [self._score(container.get_arrays(), compared) for container in said]

    def _score(self, scores: Any, references: Any) -> float:
        if isinstance(scores, np.ndarray) and scores.ndim in (1, 2):
            scores = scores.astype(np.float64)  # as in tasks: probabilities must sum to one
        needs = self.metric.needs
        given = for_each(needs, lambda each: self._form(scores, each))
        return self.metric(given, for_each(needs, lambda each: references))

    def _form(self, scores: Any, needs: str) -> Any:
        """Converts scores to the form that a metric takes."""
        if needs == "scores":
            return scores
        shape = scores.shape if isinstance(scores, np.ndarray) else ()
        if needs == "values" and shape[1:] == (1,):
            return scores[:, 0]
        dimensions, wanted = (1, "(N,)") if needs == "values" else (2, "(N, classes)")
        if len(shape) != dimensions:
            raise ValueError(
                f"objective {self.name!r} takes {needs}, which need one array of scores of shape "
                f"{wanted}, but the model predicts {_shapes(scores)}: convert them with "
                "preprocess_logits_for_metrics, or use objective='compute_metrics'"
            )
        return as_needed(scores, needs)


def trainer_objective(objective: Any, trainer: Trainer) -> TrainerObjective:
    """Builds the objective that a trainer's argument describes.

    Args:
        objective: ``"loss"``; ``"compute_metrics"``, the trainer's own; or any objective of
            :func:`zoopt.tune`, such as a name or a metric.
        trainer: provides ``compute_metrics``.
    """
    if objective == "loss":
        return ModelLoss()
    if objective == "compute_metrics":
        return PredictionMetric(_of_trainer(trainer))
    return PredictionMetric(resolve(objective))


def _of_trainer(trainer: Trainer) -> Metric:
    """``compute_metrics``, with the entry and the direction that choose the best checkpoint."""
    args: TrainingArguments = trainer.args
    if trainer.compute_metrics is None:
        raise ValueError("objective='compute_metrics' needs compute_metrics: pass the function")
    for setting, why in _NOT_GIVEN.items():
        if getattr(args, setting):
            raise ValueError(
                f"objective='compute_metrics' with {setting}={getattr(args, setting)!r}: {why}. "
                "Remove it, or keep it for evaluations and use objective="
                "zoopt.metric(function, 'compute_metrics', key='f1', higher_is_better=True)"
            )
    key, up = args.metric_for_best_model, args.greater_is_better
    if up is None and key is not None:
        up = not key.endswith("loss")  # as in TrainingArguments
    if up is None:
        raise ValueError(
            "objective='compute_metrics' needs to know which of its numbers to tune and in which "
            "direction: set TrainingArguments(metric_for_best_model='f1', greater_is_better=True)"
        )
    words = set(re.split(r"[^a-z]+", (key or "").lower()))
    if up and words & _ERRORS and not words & {"neg", "negative"}:
        raise ValueError(
            f"metric_for_best_model={key!r} would be maximized, since greater_is_better defaults "
            "to True: set TrainingArguments(greater_is_better=False). If higher is better, use "
            "objective=zoopt.metric(compute_metrics, 'compute_metrics', "
            f"key={key!r}, higher_is_better=True)"
        )
    return metric(trainer.compute_metrics, "compute_metrics", higher_is_better=up, key=key)


def rows_of(inputs: Any) -> int:
    """The number of examples in a batch."""
    rows: int | None = find_batch_size(inputs)  # type: ignore[no-untyped-call]
    if not rows:
        raise ValueError(f"a batch has no tensor with examples, only {', '.join(inputs)}")
    return rows


def _shapes(scores: Any) -> str:
    """The shape of predictions, or the shapes of a tuple of them."""
    if isinstance(scores, tuple):
        return f"a tuple of {' and '.join(map(_shapes, scores))}"
    return str(np.shape(scores))


def _for_all(inputs: Any, probes: Population) -> Any:
    """Repeats inputs for each probe."""
    if probes.size > 1:
        return probes.expand(dict(inputs))
    probes.declare(rows_of(inputs))
    return copy.copy(inputs)


def _of_probe(values: Any, probes: Population, probe: int) -> Any:
    """Selects one probe's rows of all tensors in a structure."""
    return tree_map_only(Tensor, lambda tensor: probes.per_probe(tensor)[probe], values)
