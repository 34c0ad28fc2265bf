"""Generation: a language model continues or answers a prompt, and its text is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoopt.probes.population import Population
from zoopt.tasks.base import Scores, Task
from zoopt.tasks.examples import Example
from zoopt.tasks.text import TextInputs, device_of, is_encoder_decoder


class Generation(Task):
    """The text that ``model.generate`` adds to each rendered template.

    From an encoder-decoder, such as T5, it is all text that the decoder writes.

    All probes of a population generate in one call. If tokens are sampled, the probes of a step
    use common random numbers, so that they differ only by their parameters.

    Args:
        train: training examples.
        dev: examples for choosing the best checkpoint.
        test: examples used only in the report.
        tokenizer: a Hugging Face tokenizer.
        template: the prompt, with columns in braces.
        target: the column with the reference text, or with a list of them; empty for rewards that
            need no reference.
        max_new_tokens: longest completion in tokens.
        decoding: further arguments of ``model.generate``, such as ``{"do_sample": True,
            "temperature": 0.8}``; greedy without any.
        stop: text before which completions are cut off, such as a full stop; none if empty.
        max_length: longest prompt in tokens; longer ones lose their start. If None, the tokenizer's
            limit minus ``max_new_tokens``.
        batch_size: examples in one call.
    """

    gives = "texts"
    loads = "AutoModelForCausalLM"
    padding_costs = False

    def __init__(
        self,
        train: Sequence[Example],
        dev: Sequence[Example] = (),
        test: Sequence[Example] = (),
        *,
        tokenizer: Any,
        template: str = "{prompt}",
        target: str = "",
        max_new_tokens: int = 64,
        decoding: Mapping[str, Any] | None = None,
        stop: str = "",
        max_length: int | None = None,
        batch_size: int = 16,
    ) -> None:
        super().__init__(train, dev, test, target=target, batch_size=batch_size)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
        self.inputs = TextInputs(tokenizer, template, max_length, max_new_tokens)
        self.max_new_tokens, self.stop = max_new_tokens, stop
        self.decoding = {"do_sample": False, **(decoding or {})}

    def length(self, example: Example) -> int:
        """The number of tokens of the prompt."""
        return len(self.inputs.ids(example))

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Ids of the new tokens, shape (N, longest), padded on the right."""
        answers = is_encoder_decoder(model)
        made = self.inputs.batch(examples, device_of(model), "right" if answers else "left")
        generate: Callable[..., torch.Tensor] = model.generate  # type: ignore[assignment]
        out = generate(
            input_ids=made["input_ids"],
            attention_mask=made["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.inputs.tokenizer.pad_token_id,
            **self.decoding,
        )
        # A decoder of its own begins with a start token, and not with the prompt.
        return out[:, 1 if answers else made["input_ids"].shape[1] :]

    def said(self, out: torch.Tensor, population: Population) -> Scores:
        """The texts of new tokens, shape (K, N)."""
        texts = self.inputs.tokenizer.batch_decode(out, skip_special_tokens=True)
        if self.stop:
            texts = [text.partition(self.stop)[0] for text in texts]
        return np.asarray(texts, dtype=str).reshape(population.size, -1)

    def references(self, examples: Sequence[Example]) -> NDArray[Any]:
        """Each example's reference text or list of texts, ``""`` without a target column."""
        return _objects([self.given(e) if self.target else "" for e in examples])

    def asked(self, examples: Sequence[Example]) -> NDArray[Any]:
        """The examples with the model's prompt as ``"prompt"``, unless they have that column."""
        return _objects([{"prompt": self.inputs.render(e), **e} for e in examples])


def _objects(items: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array
