"""Similarity of two items' embeddings, from an encoder or any other module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from zoopt.tasks.base import Scores
from zoopt.tasks.examples import Example, missing
from zoopt.tasks.head import Head


class Similarity(Head):
    """The value is the cosine of the embeddings of two columns, in [−1, 1].

    An embedding is the mean of the last hidden states over a text's tokens (Reimers and Gurevych
    2019, arXiv 1908.10084). If a module's output is one vector per row, it is used directly. Each
    of the two items is a row of a forward, so that texts of similar length can share one.

    Args:
        columns: the two columns to compare. The content of each, of any type, becomes the
            ``"text"`` of a row, for the template or for ``collate``.
        *args: as for :class:`Head`.
        **kwargs: as for :class:`Head`.

    Raises:
        ValueError: there are not exactly two columns.
    """

    loads = "AutoModel"

    def __init__(
        self, *args: Any, columns: Sequence[str] = ("sentence1", "sentence2"), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if len(columns) != 2:
            raise ValueError(f"columns={list(columns)}; expected two columns to compare")
        self.columns = tuple(columns)

    def rows(self, example: Example) -> Sequence[Example]:
        """The example twice, with the first and the second column as ``"text"``."""
        for column in self.columns:
            if missing(example.get(column)):
                raise KeyError(
                    f"the example has no text in column {column!r} to compare; it has "
                    f"{', '.join(map(repr, example))}. Name two with columns=[..., ...]"
                )
        return [{**example, "text": example[column]} for column in self.columns]

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Embeddings, shape (rows, dimensions)."""
        inputs = self.model_inputs(model, examples)
        out = self.output(model, inputs)
        states = getattr(out, "last_hidden_state", out)
        if not isinstance(states, torch.Tensor) or states.ndim not in (2, 3):
            raise TypeError(
                f"{type(model).__name__} returns {type(out).__name__}, which has no embeddings; "
                "expected last_hidden_state, as from transformers.AutoModel, or one vector per row"
            )
        if states.ndim == 2:
            return states
        mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
        there = torch.ones_like(states[..., 0]) if mask is None else mask
        absent = (there == 0).unsqueeze(-1)
        return states.float().masked_fill(absent, 0.0).sum(1) / there.sum(1, keepdim=True)

    def joined(self, said: Scores, examples: Sequence[Example]) -> Scores:
        """Cosines, shape (K, N)."""
        a, b = said[:, 0::2], said[:, 1::2]
        norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        cosines: Scores = (a * b).sum(-1) / np.maximum(norms, np.finfo(np.float64).tiny)
        return cosines
