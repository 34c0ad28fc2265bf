"""Classification and regression by a head: the model's own output is the prediction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from zoopt.tasks.base import Task
from zoopt.tasks.examples import Example
from zoopt.tasks.text import TextInputs, accepted, device_of

log = logging.getLogger("zoopt")

Collate = Callable[[Sequence[Example]], Any]
"""Examples to model inputs: a tensor, a tuple of positional or a dict of keyword arguments."""


class Head(Task):
    """Uses the outputs of a model: a sequence classifier, or any torch module.

    Args:
        train: training examples.
        dev: examples for choosing the best checkpoint.
        test: examples used only in the report.
        tokenizer: a Hugging Face tokenizer, with ``template``, for text models.
        template: text with columns in braces.
        collate: a function from examples to model inputs, instead of a tokenizer.
        target: the column that holds the reference.
        max_length: longest input in tokens.
        batch_size: examples in one forward.
    """

    def __init__(
        self,
        train: Sequence[Example],
        dev: Sequence[Example] = (),
        test: Sequence[Example] = (),
        *,
        tokenizer: Any = None,
        template: str = "{text}",
        collate: Collate | None = None,
        target: str = "label",
        max_length: int | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(train, dev, test, target=target, batch_size=batch_size)
        if (tokenizer is None) == (collate is None):
            raise ValueError(
                "give either a tokenizer (text models) or collate, a function from examples to "
                "model inputs"
            )
        self.inputs = None if tokenizer is None else TextInputs(tokenizer, template, max_length)
        self.collate = collate

    def length(self, example: Example) -> int:
        """The number of tokens of the rendered example; 0 without a tokenizer."""
        return len(self.inputs.ids(example)) if self.inputs is not None else 0

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """The model's output, shape (N, outputs)."""
        out = self.output(model, self.model_inputs(model, examples))
        logits: torch.Tensor = getattr(out, "logits", out)
        return logits

    def model_inputs(self, model: torch.nn.Module, examples: Sequence[Example]) -> Any:
        """The model's arguments: a dict of keyword or a tuple of positional arguments."""
        device = device_of(model)
        if self.inputs is not None:
            # Without this, decoders would store keys and values that nothing uses.
            inputs: dict[str, Any] = dict(self.inputs.batch(examples, device, "right"))
            return accepted(model, inputs | {"use_cache": False})
        assert self.collate is not None
        made = self.collate(examples)
        if isinstance(made, dict):
            return {name: value.to(device) for name, value in made.items()}
        return tuple(tensor.to(device) for tensor in (made if isinstance(made, tuple) else (made,)))

    def output(self, model: torch.nn.Module, inputs: Any) -> Any:
        """The model's output for its inputs."""
        return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


class HeadClassification(Head):
    """The outputs are class logits, shape (N, classes).

    Works with any module, such as an image model of timm, whose inputs ``collate`` makes:

        >>> import torch, zoopt
        >>> photos = [{"pixels": torch.zeros(3, 8, 8), "label": "cat"}] * 2
        >>> task = zoopt.HeadClassification(
        ...     photos,
        ...     labels=["cat", "dog"],
        ...     collate=lambda batch: torch.stack([row["pixels"] for row in batch]),
        ... )
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
        >>> task.predict(model, photos).shape
        (2, 2)

    Args:
        labels: names of the classes in the order of the outputs.
        *args: as for :class:`Head`.
        **kwargs: as for :class:`Head`.
    """

    gives = "class scores"

    def __init__(self, *args: Any, labels: Sequence[str | float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(labels) < 2:
            raise ValueError(
                "classification by a head needs two labels or more, for example "
                '["negative", "positive"]'
            )
        self.labels = tuple(map(str, labels))
        if len(set(self.labels)) < len(labels):
            raise ValueError(f"two labels are the same: {list(labels)}")

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Class logits, shape (N, classes)."""
        logits = super().forward(model, examples)
        if logits.shape[-1] != len(self.labels):
            raise ValueError(
                f"the model gives {logits.shape[-1]} logits for {len(self.labels)} labels "
                f"{self.labels}: load it with num_labels={len(self.labels)}, or name all labels"
            )
        return logits


def name_outputs(model: torch.nn.Module, labels: Sequence[str]) -> None:
    """Sets the names of the outputs of a model of transformers, with a warning if it has others.

    A configuration with another number of outputs is left alone.
    """
    config: Any = getattr(model, "config", None)
    held = dict(getattr(config, "id2label", None) or {})
    if len(held) != len(labels):
        return
    names = [str(held.get(i)) for i in range(len(labels))]
    unnamed = [f"LABEL_{i}" for i in range(len(labels))]
    if names != unnamed and [*map(str.lower, names)] != [*map(str.lower, labels)]:
        log.warning(
            "the outputs of %s are named %s, but labels are %s, by which it is tuned and saved. If "
            "its head was trained with the former, give labels in that order",
            type(model).__name__,
            ", ".join(names),
            ", ".join(labels),
        )
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}


class Regression(Head):
    """The single output is the predicted value, shape (N,) or (N, 1)."""

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Values, shape (N,)."""
        values = super().forward(model, examples)
        if values.ndim == 2 and values.shape[1] == 1:
            return values[:, 0]
        if values.ndim != 1:
            raise ValueError(
                "a regression takes one output per example, but the model's output has shape "
                f"{tuple(values.shape)}: load it with num_labels=1"
            )
        return values
