"""What a Trainer's minibatch is worth: the model's own loss, or a metric of its predictions.

Either is one number for all micro-batches of a gradient accumulation, as if they were one batch: a
loss is the mean over all items (tokens, or examples), and predictions are collected and scored
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
from zoopt.objectives.metric import Metric, for_each
from zoopt.objectives.resolve import resolve
from zoopt.probes.population import Population
from zoopt.tasks.base import as_needed

MicroBatches = Sequence[Any]
"""What a data collator made: dicts of model inputs, on the model's device."""

_TAKEN = ("labels", "probabilities", "values", "scores")

_NOT_GIVEN = {
    "batch_eval_metrics": "a step has its predictions all at once, and asks for compute_metrics "
    "once a probe, without compute_result",
    "include_for_metrics": "a step gives compute_metrics predictions and labels alone",
}
"""Arguments that change what ``compute_metrics`` is given, and what a step gives it."""

_ERRORS = frozenset(
    {"cer", "distance", "err", "error", "mae", "mse", "perplexity", "ppl", "rmse", "ter", "wer"}
)
"""Words in names of metrics of which less is better."""


class TrainerObjective(Protocol):
    """A number of micro-batches.

    Attributes:
        name: what logs call it.
        higher_is_better: which way is up.
        takes_population: whether several probes can share a forward.
    """

    name: str
    higher_is_better: bool
    takes_population: bool

    def values(
        self, trainer: Trainer, model: torch.nn.Module, batches: MicroBatches, probes: Population
    ) -> list[float]:
        """The number for each probe."""


class ModelLoss:
    """What ``Trainer.compute_loss`` returns: the model's loss, or ``compute_loss_func``'s."""

    name = "loss"
    higher_is_better = False
    takes_population = False

    def values(
        self, trainer: Trainer, model: torch.nn.Module, batches: MicroBatches, probes: Population
    ) -> list[float]:
        """The mean loss of all items.

        A model that is told how many items there are divides by their number, and one that does not
        listen takes the mean over its inputs. Told of its own micro-batch, either gives a mean.
        """
        counted = [trainer.get_batch_samples(iter([b]), 1, trainer.args.device)[1] for b in batches]
        weights = [
            float(rows_of(inputs)) if items is None else float(items)
            for inputs, items in zip(batches, counted, strict=True)
        ]
        value = 0.0 if any(weights) else math.nan
        for inputs, items, weight in zip(batches, counted, weights, strict=True):
            if weight:
                # A copy, since label smoothing takes the labels out.
                loss: Any = trainer.compute_loss(model, copy.copy(inputs), num_items_in_batch=items)
                value += float(loss) * (weight / sum(weights))
        return [value]


class PredictionMetric:
    """A metric of what ``Trainer.prediction_step`` gives, as an evaluation would compute it.

    Args:
        metric: what scores the predictions.

    Raises:
        ValueError: it needs something else than scores, such as generated texts.
    """

    takes_population = True

    def __init__(self, metric: Metric) -> None:

        def check(needs: str) -> None:
            if needs not in _TAKEN:
                raise ValueError(
                    f"objective {metric.name!r} takes {needs}, but a Trainer's predictions are "
                    "scores: work on them in compute_metrics and write "
                    "objective='compute_metrics', or use a task and zoopt.tune"
                )

        for_each(metric.needs, check)
        self.metric = metric
        self.name = metric.name
        self.higher_is_better = metric.higher_is_better

    def values(
        self, trainer: Trainer, model: torch.nn.Module, batches: MicroBatches, probes: Population
    ) -> list[float]:
        """The metric of each probe's predictions on all micro-batches together."""
        said: list[Any] = [EvalLoopContainer() for _ in range(probes.size)]
        references: Any = EvalLoopContainer()
        for inputs in batches:
            predicted: tuple[Any, Any, Any] = trainer.prediction_step(
                model, _for_all(inputs, probes), False
            )
            _, scores, labels = predicted
            if labels is None:
                raise ValueError(
                    f"objective {self.name!r} compares with labels, but a batch has only "
                    f"{', '.join(map(repr, inputs))}: name its labels with "
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
            scores = scores.astype(np.float64)  # as tasks give them: chances are to sum to one
        needs = self.metric.needs
        given = for_each(needs, lambda each: self._form(scores, each))
        return self.metric(given, for_each(needs, lambda each: references))

    def _form(self, scores: Any, needs: str) -> Any:
        """Scores in the form that a metric takes."""
        if needs == "scores":
            return scores
        shape = scores.shape if isinstance(scores, np.ndarray) else ()
        if needs == "values" and shape[1:] == (1,):
            return scores[:, 0]
        dimensions, wanted = (1, "(N,)") if needs == "values" else (2, "(N, classes)")
        if len(shape) != dimensions:
            raise ValueError(
                f"objective {self.name!r} takes {needs}, which are made of one array of scores "
                f"{wanted}, but the model predicts {_shapes(scores)}: bring that into shape with "
                "preprocess_logits_for_metrics, or write objective='compute_metrics'"
            )
        return as_needed(scores, needs)


def trainer_objective(objective: Any, trainer: Trainer) -> TrainerObjective:
    """What is meant by an objective.

    Args:
        objective: ``"loss"``; ``"compute_metrics"``, the trainer's own; or what
            :func:`zoopt.tune` takes, a name or a metric.
        trainer: whose ``compute_metrics`` is meant.
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
        raise ValueError("objective='compute_metrics' tunes compute_metrics: give the function")
    for setting, why in _NOT_GIVEN.items():
        if getattr(args, setting):
            raise ValueError(
                f"objective='compute_metrics' with {setting}={getattr(args, setting)!r}: {why}. "
                "Leave it out, or leave it to evaluations and write objective="
                "zoopt.metric(function, 'compute_metrics', key='f1', higher_is_better=True)"
            )
    key, up = args.metric_for_best_model, args.greater_is_better
    if up is None and key is not None:
        up = not key.endswith("loss")  # as TrainingArguments has it
    if up is None:
        raise ValueError(
            "objective='compute_metrics' needs to know which of its numbers is tuned, and which "
            "way is up: TrainingArguments(metric_for_best_model='f1', greater_is_better=True)"
        )
    if up and key is not None and _ERRORS & set(re.split(r"[^a-z]+", key.lower())):
        raise ValueError(
            f"metric_for_best_model={key!r} would be tuned upwards, as greater_is_better is True "
            "where nobody says otherwise: set TrainingArguments(greater_is_better=False). If more "
            "of it is better, give objective=zoopt.metric(compute_metrics, 'compute_metrics', "
            f"key={key!r}, higher_is_better=True)"
        )
    return metric(trainer.compute_metrics, "compute_metrics", higher_is_better=up, key=key)


def rows_of(inputs: Any) -> int:
    """How many examples there are."""
    rows: int | None = find_batch_size(inputs)  # type: ignore[no-untyped-call]
    if not rows:
        raise ValueError(f"a batch has no tensor with examples in it: {', '.join(inputs)}")
    return rows


def _shapes(scores: Any) -> str:
    """The shape of predictions, or the shapes of several."""
    if isinstance(scores, tuple):
        return f"a tuple of {' and '.join(map(_shapes, scores))}"
    return str(np.shape(scores))


def _for_all(inputs: Any, probes: Population) -> Any:
    """Inputs for each of the probes, one after the other."""
    if probes.size > 1:
        return probes.expand(dict(inputs))
    probes.declare(rows_of(inputs))
    return copy.copy(inputs)


def _of_probe(values: Any, probes: Population, probe: int) -> Any:
    """One probe's rows of all tensors in a structure."""
    return tree_map_only(Tensor, lambda tensor: probes.per_probe(tensor)[probe], values)
