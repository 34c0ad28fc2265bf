"""Text in: rendering a template, tokenizing once, and padding a batch."""

from __future__ import annotations

import inspect
import string
from collections.abc import Sequence
from typing import Any

import torch

from zoopt.tasks.base import Example


class TextInputs:
    """Model inputs from a template and a tokenizer. Token ids of each example are kept.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: text with the examples' columns in braces, such as ``"{text} It was"``.
        max_length: longest input in tokens; longer ones lose their beginning, so that the end of
            the template stays. The tokenizer's own limit if None.
    """

    def __init__(self, tokenizer: Any, template: str, max_length: int | None = None) -> None:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field]
        if not fields:
            raise ValueError(
                f"template {template!r} names no column: put one in braces, as in '{{text}}'"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.tokenizer, self.template = tokenizer, template
        self.max_length = max_length or min(tokenizer.model_max_length, 1 << 20)
        self._kept: dict[str, list[int]] = {}

    def render(self, example: Example) -> str:
        """The template filled with an example."""
        try:
            return self.template.format_map(example)
        except KeyError as error:
            raise KeyError(
                f"template {self.template!r} wants column {error}, but the example has "
                f"{', '.join(map(repr, example))}"
            ) from None

    def ids(self, example: Example) -> list[int]:
        """Token ids of the rendered example."""
        text = self.render(example)
        if text not in self._kept:
            self._kept[text] = list(self.tokenizer(text)["input_ids"])[-self.max_length :]
        return self._kept[text]

    def batch(
        self, examples: Sequence[Example], device: torch.device, side: str
    ) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` and ``position_ids``, shape (N, longest).

        Args:
            examples: what to encode.
            device: where to put the tensors.
            side: ``"left"`` or ``"right"``, where the padding goes.
        """
        rows = [self.ids(example) for example in examples]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[i, where] = torch.tensor(row)
            mask[i, where] = 1
        # Positions count the tokens that are there, so padding on the left shifts nothing.
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return {name: tensor.to(device) for name, tensor in inputs.items()}


def accepted(model: torch.nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Those of the inputs that the model's forward takes by name."""
    unwrap: Any = getattr(model, "get_base_model", lambda: model)
    names = inspect.signature(unwrap().forward).parameters
    return {name: value for name, value in inputs.items() if name in names}


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model's first parameter is."""
    return next(model.parameters()).device
