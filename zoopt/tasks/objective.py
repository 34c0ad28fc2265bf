"""The objective of a run: a task's predictions, scored by a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from zoopt.objectives.combination import Combination
from zoopt.objectives.forms import Needs, each_of, forms_of
from zoopt.objectives.metric import Metric, Parts, for_each, refuse_nan
from zoopt.probes.population import Population
from zoopt.tasks.base import Scores, Task
from zoopt.tasks.examples import Example

TAKEN: Mapping[str, tuple[str, ...]] = {
    "class scores": ("labels", "probabilities", "scores"),
    "values": ("values", "scores"),
    "texts": ("texts", "completions"),
    "margins": ("margins",),
    "numbers": ("model",),
}
"""The forms of predictions that a metric may need, by the kind that a task gives."""


class TaskObjective:
    """Task × metric: the objective that is tuned.

    Args:
        task: makes the predictions.
        metric: scores all predictions of a batch together.
    """

    def __init__(self, task: Task, metric: Metric) -> None:
        usual = f"the usual one is {task.metric}; " if task.metric else ""
        for needs in each_of(metric.needs):
            if needs not in TAKEN[task.gives]:
                raise ValueError(
                    f"objective {metric.name!r} takes {needs}, but {type(task).__name__} gives "
                    f"{task.gives}: choose another objective ({usual}list them with zoopt list "
                    "objectives) or another task"
                )
        self.task = task
        self.metric = metric
        self.higher_is_better = metric.higher_is_better

    def score(self, predictions: Scores, references: Any) -> float:
        """The metric of predictions, which are converted to the form that it takes."""
        return self.metric(as_needed(predictions, self.metric.needs), references)

    def references(self, examples: Sequence[Example]) -> Any:
        """The references that the metric compares predictions with."""
        return references_for(self.task, self.metric, examples)

    def value(self, model: torch.nn.Module, batch: Sequence[Example]) -> float:
        """The objective's value on a batch."""
        return self.values(model, batch, Population(1))[0]

    def values(
        self, model: torch.nn.Module, batch: Sequence[Example], population: Population
    ) -> list[float]:
        """The objective's value on a batch for each probe of a population."""
        references = self.references(batch)
        said = self.task.predict_each(model, batch, population)
        return [self.score(scores, references) for scores in said]


def references_for(task: Task, metric: Metric, examples: Sequence[Example]) -> Any:
    """A metric's references for a task's predictions; for rewards the examples.

    If it compares with the base model, that model's outputs come before them in :class:`Parts`.
    """
    if isinstance(metric, Combination):
        return Parts(tuple(references_for(task, each, examples) for each in metric.metrics))
    references = truth_for(task, metric, examples)
    if metric.from_base:
        return Parts((as_needed(task.anchored(examples), metric.needs), references))
    return references


def truth_for(task: Task, metric: Metric, examples: Sequence[Example]) -> NDArray[Any]:
    """What the examples say: the task's references, or for rewards the examples themselves."""
    return task.asked(examples) if metric.needs == "completions" else task.references(examples)


def as_needed(scores: Scores, needs: Needs) -> Any:
    """Scores in the form a metric takes: labels (argmax), probabilities (softmax) or values.

    Raises:
        NonFiniteLossError: a score is NaN, which argmax would take for the largest.
    """
    if any(form.made_of in ("numbers", "classes") for form in forms_of(needs)):
        refuse_nan(scores, "the objective")

    def one(needs: str) -> Any:
        if needs == "labels":
            return np.argmax(scores, axis=1)
        if needs == "probabilities":
            return softmax(scores, axis=1)
        return scores

    return for_each(needs, one)
