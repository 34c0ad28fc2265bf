"""Classification by verbalizer with a masked language model: a word replaces the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoopt.tasks.examples import Example
from zoopt.tasks.text import accepted, columns_of, device_of
from zoopt.tasks.verbalizer import Verbalizer


class MaskedVerbalizer(Verbalizer):
    """Class logits are the logits of each class's word at the template's mask.

    As in LM-BFF's prompts for RoBERTa (Gao et al. 2021, arXiv 2012.15723), which MeZO uses.

    Args:
        *args: as for :class:`Verbalizer`.
        tokenizer: a Hugging Face tokenizer with a mask token.
        template: text with columns in braces and one ``{mask}``, as ``"{text} It was {mask}."``
        **kwargs: as for :class:`Verbalizer`.

    Raises:
        ValueError: there is no mask token, or not exactly one ``{mask}`` in the template.
    """

    loads = "AutoModelForMaskedLM"

    def __init__(self, *args: Any, tokenizer: Any, template: str, **kwargs: Any) -> None:
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "the tokenizer has no mask token, so its model is not a masked language model: use "
                "Verbalizer for causal ones"
            )
        if columns_of(template).count("mask") != 1:
            raise ValueError(
                f"template {template!r} needs exactly one {{mask}}, which the word replaces, as in "
                "'{text} It was {mask}.'"
            )
        super().__init__(*args, tokenizer=tokenizer, template=template, **kwargs)

    def before_word(self, template: str) -> str:
        """The empty string: a word at the mask has the same token as alone."""
        return ""

    def rows(self, example: Example) -> Sequence[Example]:
        """The example with the mask token as ``"mask"``."""
        return ({**example, "mask": self.inputs.tokenizer.mask_token},)

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Logits of the words at the mask, shape (N, classes)."""
        inputs = self.inputs.batch(examples, device_of(model), "right")
        masks = inputs["input_ids"] == self.inputs.tokenizer.mask_token_id
        for row, count in zip(examples, masks.sum(1).tolist(), strict=True):
            if count != 1:
                self._refuse(row, count)
        place = masks.int().argmax(1)
        logits: torch.Tensor = model(**accepted(model, inputs)).logits
        return logits[torch.arange(len(examples), device=place.device), place][:, self.word_ids]

    def _refuse(self, row: Example, count: int) -> None:
        text, longest = self.inputs.render(row), self.inputs.max_length
        if count:
            raise ValueError(
                f"{text!r} has {count} masks, only one of them from the template: remove "
                f"{row['mask']!r} from the data"
            )
        raise ValueError(
            f"the mask of {text[:80]!r} … is cut off: the text has "
            f"{len(self.inputs.tokens(text))} tokens, of which the last max_length={longest} are "
            "kept. Raise max_length, or move {mask} towards the end of the template"
        )
