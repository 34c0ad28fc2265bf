"""Text inputs: rendering a template, tokenizing once, and padding a batch."""

from __future__ import annotations

import inspect
import reprlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from zoopt.tasks.examples import Example, missing


class TextInputs:
    """Model inputs from a template and a tokenizer. Token ids of each text are cached.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: text with the examples' columns in braces, such as ``"{text} It was"``.
        max_length: longest input in tokens; longer ones lose the start of their text, so that
            the end of the template is kept. If None, the tokenizer's limit minus ``to_come``.
        to_come: tokens reserved for those that the model will generate.

    Raises:
        ValueError: the template names no column, the tokenizer has no token for padding, or no
            token is left for the input.
    """

    def __init__(
        self, tokenizer: Any, template: str, max_length: int | None = None, to_come: int = 0
    ) -> None:
        if not columns_of(template):
            raise ValueError(
                f"template {template!r} has no column: put one in braces, as in '{{text}}'"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has neither pad_token nor eos_token, but texts of a "
                "batch are padded to one length: set tokenizer.pad_token to one of its tokens"
            )
        self.tokenizer, self.template = tokenizer, template
        self.max_length = max_length or min(tokenizer.model_max_length, 1 << 20) - to_come
        if self.max_length < 1:
            raise ValueError(
                f"max_new_tokens={to_come} leaves none of the tokenizer's "
                f"{tokenizer.model_max_length} tokens (model_max_length) to the prompt: lower "
                "max_new_tokens, or set max_length, the longest prompt"
            )
        self._kept: dict[str, list[int]] = {}

    def render(self, example: Example) -> str:
        """The template filled with an example."""
        return filled(self.template, example)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, not truncated."""
        if text not in self._kept:
            self._kept[text] = list(self.tokenizer(text)["input_ids"])
        return self._kept[text]

    def ids(self, example: Example) -> list[int]:
        """Token ids of the rendered example, at most ``max_length``."""
        tokens = self.tokens(self.render(example))
        if len(tokens) <= self.max_length:
            return tokens
        opening = self.opening(tokens)
        return tokens[:opening] + tokens[len(tokens) - self.max_length + opening :]

    def opening(self, tokens: Sequence[int]) -> int:
        """Number of special tokens before every text: the BOS or CLS token, if there is one."""
        return common_beginning(tokens, self.tokens(""))

    def batch(
        self, examples: Sequence[Example], device: torch.device, side: str
    ) -> dict[str, torch.Tensor]:
        """Inputs of a model, shape (N, longest).

        Args:
            examples: the examples to encode.
            device: the device of the tensors.
            side: ``"left"`` or ``"right"``, the side of the padding.

        Returns:
            ``input_ids`` and ``attention_mask``; with padding on the left also ``position_ids``,
            which count the tokens without padding. With padding on the right models compute
            correct positions themselves, some of them (RoBERTa) not starting at 0.
        """
        rows = [self.ids(example) for example in examples]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[i, where] = torch.tensor(row)
            mask[i, where] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if side == "left":
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return {name: tensor.to(device) for name, tensor in inputs.items()}


def columns_of(template: str) -> list[str]:
    """The columns that a template names.

    >>> columns_of("{premise}? {mask}, {hypothesis}")
    ['premise', 'mask', 'hypothesis']
    """
    try:
        return [field for _, field, _, _ in string.Formatter().parse(template) if field]
    except ValueError as error:
        raise ValueError(
            f"template {template!r}: {error}. Put columns in braces; write two for a literal brace"
        ) from None


def filled(template: str, example: Mapping[str, Any]) -> str:
    """A template filled with the columns of an example.

    Raises:
        KeyError: it names a column that the example does not have, or has no value in.
        TypeError: a column holds messages of a conversation.
    """
    for name in columns_of(template):
        value = example.get(name)
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            raise TypeError(
                f"column {name!r} holds messages of a conversation, but template {template!r} "
                "needs a text: convert them first with "
                "tokenizer.apply_chat_template(messages, tokenize=False, "
                "add_generation_prompt=True)"
            )
        if name in example and missing(value):
            raise KeyError(
                f"template {template!r} needs column {name!r}, but it is {value!r} in the example "
                f"{reprlib.repr(dict(example))}: leave the example out, or put a text there"
            )
    try:
        return template.format_map(example)
    except KeyError as error:
        raise KeyError(
            f"template {template!r} needs column {error}, but the example has "
            f"{', '.join(map(repr, example))}"
        ) from None


def common_beginning(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The length of the common prefix of two sequences.

    >>> common_beginning([1, 5, 5], [1, 5, 6, 7])
    2
    """
    unlike = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(unlike, min(len(a), len(b)))


def accepted(model: torch.nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs that the model's forward has parameters for."""
    unwrap: Any = getattr(model, "get_base_model", lambda: model)
    names = inspect.signature(unwrap().forward).parameters
    return {name: value for name, value in inputs.items() if name in names}


def last_positions(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """``logits_to_keep`` for the last positions of tokens of shape (rows, length), as indices.

    They count from the end, because an adapter may insert virtual tokens at the start. With
    indices, a model gathers the positions into a new tensor. With a number, it takes a slice, which
    torch multiplies with a frozen head separately for each row, each time on a copy of the head:
    that takes longer than the rest of the forward.
    """
    return torch.arange(-min(count, tokens.shape[1]), 0, device=tokens.device)


def is_encoder_decoder(model: torch.nn.Module) -> bool:
    """Whether the model reads its input with an encoder and writes with a decoder, like T5."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def require_causal(model: torch.nn.Module, task: str) -> None:
    """Raises TypeError if a task that continues a text is given an encoder-decoder."""
    if is_encoder_decoder(model):
        raise TypeError(
            f"{task} scores words that continue the template, which takes a causal language "
            f"model, but {type(model).__name__} is an encoder-decoder: use zoopt.Generation with "
            "a metric of texts, such as exact_match, or zoopt.HeadClassification with a sequence "
            "classifier of that architecture"
        )


def device_of(model: torch.nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device
