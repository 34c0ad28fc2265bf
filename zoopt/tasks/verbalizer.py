"""Classification by verbalizer: a causal language model predicts a word for the class."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from zoopt.tasks.base import Task
from zoopt.tasks.examples import Example
from zoopt.tasks.text import TextInputs, accepted, device_of, last_positions, require_causal


class Verbalizer(Task):
    """Class logits are the next-token logits of each class's word after the rendered template.

    As in MeZO's prompts (arXiv 2305.17333, appendix D; Schick and Schütze 2021, arXiv 2001.07676).
    Batches are padded on the left, and only the last position's logits are computed.

    Args:
        train: training examples.
        dev: examples for choosing the best checkpoint.
        test: examples used only in the report.
        tokenizer: a Hugging Face tokenizer.
        template: text with columns in braces, ending where the word follows.
        verbalizer: the word for each label, one token each (most need a leading space), in the
            order of the classes; for metrics of a positive class it is the last of two.
        target: the column that holds the label.
        max_length: longest input in tokens.
        batch_size: examples in one forward.

    Raises:
        ValueError: a word is not a single token, or two labels share one.
    """

    gives = "class scores"
    loads = "AutoModelForCausalLM"

    def __init__(
        self,
        train: Sequence[Example],
        dev: Sequence[Example] = (),
        test: Sequence[Example] = (),
        *,
        tokenizer: Any,
        template: str,
        verbalizer: Mapping[str, str],
        target: str = "label",
        max_length: int | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(train, dev, test, target=target, batch_size=batch_size)
        if len(verbalizer) < 2:
            raise ValueError(
                "a verbalizer needs a word for each of two labels or more, for example "
                '{"negative": " terrible", "positive": " great"}'
            )
        self.inputs = TextInputs(tokenizer, template, max_length)
        self.labels = tuple(map(str, verbalizer))
        before = self.before_word(template)
        self.word_ids = [_token(tokenizer, before, label, w) for label, w in verbalizer.items()]
        if len(set(self.word_ids)) < len(self.word_ids):
            raise ValueError(f"two labels share a word: {dict(verbalizer)}")

    def before_word(self, template: str) -> str:
        """The text directly before the words that is the same for all examples."""
        *_, (literal, field, _, _) = string.Formatter().parse(template)
        return literal if field is None else ""

    def length(self, example: Example) -> int:
        """The number of tokens of the rendered example."""
        return len(self.inputs.ids(example))

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Logits of the words at the last position, shape (N, classes)."""
        require_causal(model, type(self).__name__)
        inputs: dict[str, Any] = dict(self.inputs.batch(examples, device_of(model), "left"))
        kept = last_positions(inputs["input_ids"], 1)
        inputs |= {"logits_to_keep": kept, "use_cache": False}
        logits: torch.Tensor = model(**accepted(model, inputs)).logits
        return logits[:, -1, self.word_ids]


def _token(tokenizer: Any, before: str, label: str, word: str) -> int:
    """The token of a word after a text; of the word alone if it would change the text's tokens.

    Some tokenizers (Llama 2's) give a word another token at the start of a text than within one.
    """
    kept, after, ids = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (before, before + word, word)
    )
    if after[:-1] == kept:
        ids = after[-1:]
    if len(ids) != 1:
        pieces = tokenizer.convert_ids_to_tokens(ids)
        spaced = "" if word.startswith(" ") else f" (perhaps {' ' + word!r}, with a leading space)"
        raise ValueError(
            f"the word {word!r} for label {label!r} has {len(ids)} tokens {pieces}; expected a "
            f"word of one token{spaced}. With a causal model MultipleChoice takes words of any "
            "length"
        )
    token: int = ids[0]
    return token
