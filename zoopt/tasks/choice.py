"""Multiple choice: a causal language model scores each choice by its mean log-probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from zoopt.tasks.base import Scores, Task
from zoopt.tasks.examples import Example, missing
from zoopt.tasks.text import (
    TextInputs,
    accepted,
    columns_of,
    common_beginning,
    device_of,
    filled,
    last_positions,
    require_causal,
)


class MultipleChoice(Task):
    """A choice's score is the mean log-probability of its tokens after the prompt.

    score(c) = (1/|c|) Σᵢ log p(cᵢ | prompt, c₁ … cᵢ₋₁), as the MeZO paper scores options (arXiv
    2305.17333; Brown et al. 2020, arXiv 2005.14165). Each choice is a row of a
    forward, padded on the left, and only the logits that predict its tokens are computed. Examples
    may have different numbers of choices: scores have shape (N, most choices), with −∞ for
    choices that an example does not have, so that their softmax is 0.

    A metric with ``needs="scores"`` gets the mean log-probabilities themselves. So the usual
    language-modelling loss of the right choice is one line::

        @zoopt.register_objective("choice_loss", higher_is_better=False, needs="scores")
        def choice_loss(predictions, references):
            return -predictions[np.arange(len(references)), references].mean()

    Args:
        train: training examples.
        dev: examples for choosing the best checkpoint.
        test: examples used only in the report.
        tokenizer: a Hugging Face tokenizer.
        template: text with columns in braces. The text before ``{choice}`` is the prompt; the
            choice's tokens are those from there to the end, including spaces before it.
        choices: the column that holds each example's list of choices; or, if all examples have the
            same number, a template for each label, as ``{"0": "{choice1}", "1": "{choice2}"}``.
            In a column, a choice may be a list of wordings, of which the likeliest counts.
        target: the column that holds the label, or if choices are in a column, the right choice or
            its index from 0. A text is a choice, and a number is an index, unless the choices
            themselves are numbers: a number that may be either is refused.
        max_length: longest row in tokens; longer ones lose the start of the prompt.
        batch_size: rows in one forward.

    Raises:
        ValueError: the template does not have exactly one ``{choice}``.
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
        choices: str | Mapping[str, str] = "choices",
        target: str = "label",
        max_length: int | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(train, dev, test, target=target, batch_size=batch_size)
        if columns_of(template).count("choice") != 1 or "{choice}" not in template:
            raise ValueError(
                f"template {template!r} needs exactly one {{choice}}, where a choice is inserted, "
                "as in '{question} {choice}'"
            )
        if isinstance(choices, Mapping):
            self.labels = tuple(map(str, choices))
            if len(choices) < 2:
                raise ValueError(
                    "multiple choice needs a template for each of two labels or more, for example "
                    '{"0": "{choice1}", "1": "{choice2}"}, or the column with the choices'
                )
        self.inputs = TextInputs(tokenizer, template, max_length)
        self.prompt = template.partition("{choice}")[0].rstrip(" ")
        self._choices = choices

    def choices(self, example: Example) -> list[tuple[str, ...]]:
        """An example's choices, each as a tuple of its wordings."""
        if isinstance(self._choices, Mapping):
            return [(filled(template, example),) for template in self._choices.values()]
        if self._choices not in example:
            raise KeyError(
                f"the example has no column {self._choices!r} with choices; it has "
                f"{', '.join(map(repr, example))}. Name the column with choices=..."
            )
        held = example[self._choices]
        if isinstance(held, str) or not hasattr(held, "__len__") or len(held) == 0:
            raise ValueError(
                f"column {self._choices!r} holds {held!r}; expected a list of choices, as in a "
                "JSONL or Parquet file. If each choice has its own column, use templates: "
                'choices={"0": "{choice1}", "1": "{choice2}"}'
            )
        if any(map(missing, held)):
            raise ValueError(
                f"a choice in column {self._choices!r} is missing: it holds {list(held)!r}. Leave "
                "it out; examples may have different numbers of choices"
            )
        return [tuple(map(str, _wordings(choice))) for choice in held]

    def rows(self, example: Example) -> Sequence[Example]:
        """The example with each wording of each choice as ``"choice"``."""
        choices = self.choices(example)
        return [{**example, "choice": wording} for choice in choices for wording in choice]

    def length(self, example: Example) -> int:
        """The number of tokens of a row."""
        return len(self.inputs.ids(example))

    def size(self, row: Example) -> int:
        """The number of a row's tokens that are the choice's: those after the prompt's.

        Raises:
            ValueError: there are none, or no token comes before them.
        """
        tokens = self.inputs.tokens(self.inputs.render(row))
        before = common_beginning(tokens, self.inputs.tokens(filled(self.prompt, row)))
        size, longest = len(tokens) - before, self.inputs.max_length
        if size == 0:
            raise ValueError(f"the choice {row['choice']!r} has no tokens after its prompt")
        if before == 0:
            raise ValueError(
                f"no token comes before the choice {row['choice']!r}, so its first token has no "
                f"probability: begin template {self.inputs.template!r} with a text"
            )
        if size > longest - max(1, self.inputs.opening(tokens)):
            raise ValueError(
                f"the choice {row['choice']!r} has {size} tokens, so that max_length={longest} "
                "leaves none for its prompt: raise max_length"
            )
        return size

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Mean log-probability of each row's choice, shape (rows,)."""
        require_causal(model, type(self).__name__)
        sizes = [self.size(row) for row in examples]
        longest = max(sizes)
        inputs: dict[str, Any] = dict(self.inputs.batch(examples, device_of(model), "left"))
        tokens = inputs["input_ids"][:, -longest:]
        kept = last_positions(inputs["input_ids"], longest + 1)
        inputs |= {"logits_to_keep": kept, "use_cache": False}
        logits: torch.Tensor = model(**accepted(model, inputs)).logits[:, -longest - 1 : -1]
        nats = F.cross_entropy(logits.float().mT, tokens, reduction="none")
        size = torch.tensor(sizes, device=nats.device).unsqueeze(1)
        others = torch.arange(longest, 0, -1, device=nats.device) > size
        return -nats.masked_fill(others, 0.0).sum(1) / size[:, 0]

    def joined(self, said: Scores, examples: Sequence[Example]) -> Scores:
        """Shape (K, N, most choices), each the score of its likeliest wording."""
        choices = [self.choices(example) for example in examples]
        scores = np.full((len(said), len(examples), max(map(len, choices))), -np.inf)
        row = 0
        for n, wordings in enumerate(choices):
            for c, choice in enumerate(wordings):
                scores[:, n, c] = said[:, row : row + len(choice)].max(axis=1)
                row += len(choice)
        return scores

    def anchored(self, examples: Sequence[Example]) -> Scores:
        """As the model's own scores of these examples: without choices that none of them has."""
        most = max(len(self.choices(example)) for example in examples)
        anchored: Scores = super().anchored(examples)[:, :most]
        return anchored

    def references(self, examples: Sequence[Example]) -> NDArray[Any]:
        """The right choice's index in each example, shape (N,)."""
        if self.labels:
            return super().references(examples)
        return np.asarray([self._right(example) for example in examples])

    def _right(self, example: Example) -> int:
        choices, right = self.choices(example), self.given(example)
        if isinstance(right, str):
            found = [i for i, choice in enumerate(choices) if right in choice]
        else:
            held = example[str(self._choices)]
            found = [i for i, choice in enumerate(held) if _is_number_of(right, choice)]
            index = [int(right)] if right in range(len(choices)) else []
            if found and index and found != index:
                raise ValueError(
                    f"{right!r} in column {self.target!r} is choice {found[0]} of {list(held)!r}, "
                    f"but could also be the index of {held[index[0]]!r}: give the choices as "
                    f"texts, and then {str(right)!r} for the choice or {right!r} for the index"
                )
            found = found or index
        if not found:
            raise ValueError(
                f"{right!r} in column {self.target!r} is neither one of the choices {choices} nor "
                f"the index of one, 0 to {len(choices) - 1}"
            )
        return found[0]

    def label(self, example: Example, index: int) -> str:
        """A choice's label, or its first wording."""
        return self.labels[index] if self.labels else self.choices(example)[index][0]


def _wordings(choice: Any) -> list[Any]:
    """The wordings of a choice, of which it may be a list."""
    return list(choice) if isinstance(choice, list | tuple | np.ndarray) else [choice]


def _is_number_of(right: Any, choice: Any) -> bool:
    """Whether a number is a choice, and not only its index."""
    return any(not isinstance(wording, str) and wording == right for wording in _wordings(choice))
