"""Generation: a causal language model goes on from a prompt, and its text is what is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoopt.probes.population import Population
from zoopt.tasks.base import Example, Scores, Task
from zoopt.tasks.text import TextInputs, device_of


class Generation(Task):
    """The text that ``model.generate`` adds to each rendered template.

    All probes of a population generate in one call. Where tokens are sampled, the probes of a step
    draw with common random numbers, so that they differ by their parameters and not by luck.

    Args:
        train: training examples.
        dev: examples that choose the best checkpoint.
        test: examples that only the report looks at.
        tokenizer: a Hugging Face tokenizer.
        template: the prompt, with columns in braces.
        target: the column with the reference text, or with a list of them; none if empty, for
            rewards that look at the text alone.
        max_new_tokens: longest completion in tokens.
        decoding: further arguments of ``model.generate``, such as ``{"do_sample": True,
            "temperature": 0.8}``; greedy without any.
        stop: text before which completions are cut off, as a full stop; none if empty.
        max_length: longest prompt in tokens; longer ones lose their start. The tokenizer's limit
            less ``max_new_tokens`` if None.
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
        """Tokens of the prompt."""
        return len(self.inputs.ids(example))

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Ids of the new tokens, shape (N, longest), padded on the right."""
        made = self.inputs.batch(examples, device_of(model), "left")
        generate: Callable[..., torch.Tensor] = model.generate  # type: ignore[assignment]
        out = generate(
            input_ids=made["input_ids"],
            attention_mask=made["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.inputs.tokenizer.pad_token_id,
            **self.decoding,
        )
        return out[:, made["input_ids"].shape[1] :]

    def said(self, out: torch.Tensor, population: Population) -> Scores:
        """The texts of new tokens, shape (K, N)."""
        texts = self.inputs.tokenizer.batch_decode(out, skip_special_tokens=True)
        if self.stop:
            texts = [text.partition(self.stop)[0] for text in texts]
        return np.asarray(texts, dtype=str).reshape(population.size, -1)

    def references(self, examples: Sequence[Example]) -> NDArray[Any]:
        """Each example's reference text or list of texts, ``""`` where there is none."""
        return _objects([e[self.target] if self.target else "" for e in examples])

    def asked(self, examples: Sequence[Example]) -> NDArray[Any]:
        """The examples with what the model was given as ``"prompt"``."""
        return _objects([{"prompt": self.inputs.render(e), **e} for e in examples])


def _objects(items: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array
