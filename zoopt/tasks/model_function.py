"""Objectives that are functions of the model itself, without predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from zoopt.objectives.conventions.model_function import required
from zoopt.objectives.conventions.reading import name_of
from zoopt.objectives.returned import number
from zoopt.probes.closure import warn_of_half
from zoopt.probes.population import Population
from zoopt.tasks.base import Scores, Task


class Direct(Task):
    """A function of the model, evaluated on each batch; the objective is the mean over batches.

    :func:`zoopt.tune` uses it for an objective called as ``(model, batch)``, ``(model)`` or ``()``.
    An example here is a whole batch, as yielded by a data loader.

    Args:
        function: returns the number of a model on a batch.
        train: batches for tuning.
        dev: batches for choosing the best checkpoint.
        test: batches used only in the report.

    Raises:
        TypeError: the function takes batches and there are none, or the other way round.
    """

    gives = "numbers"

    def __init__(
        self,
        function: Callable[..., Any],
        train: Sequence[Any] | None = None,
        dev: Sequence[Any] = (),
        test: Sequence[Any] = (),
    ) -> None:
        self.function, self._arguments = function, required(function)
        if self._arguments == 2 and train is None:
            raise TypeError(
                f"{name_of(function)}(model, batch) takes batches, but none are given: give them "
                "with zoopt.tune(train=loader, dev=..., test=...)"
            )
        if self._arguments < 2 and train is not None:
            raise TypeError(
                f"{name_of(function)} takes no batch, but train is given: leave train out, or "
                "let the function take (model, batch)"
            )
        once = [None]
        splits = (list(train), list(dev), list(test)) if train is not None else (once, once, once)
        super().__init__(*splits, target="", batch_size=1)

    def forward(self, model: torch.nn.Module, examples: Sequence[Any]) -> torch.Tensor:
        """The function's value on one batch, shape (1,)."""
        arguments = (model, examples[0])[: self._arguments]
        said = self.function(*arguments)
        warn_of_half(said)
        return torch.tensor([number(said, name_of(self.function))], dtype=torch.float64)

    def said(self, out: torch.Tensor, population: Population) -> Scores:
        """The value of the single probe, shape (1, 1)."""
        if population.size != 1:
            raise TypeError(
                f"{name_of(self.function)} calls the model itself, so probes cannot share a "
                "forward: use engine='overlay' or 'inplace'"
            )
        return out.numpy()[None]

    def references(self, examples: Sequence[Any]) -> Scores:
        """Zeros, shape (N,), because there is nothing to compare with."""
        return np.zeros(len(examples))
