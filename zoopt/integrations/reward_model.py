"""A sequence classifier of Hugging Face transformers as a reward function."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from zoopt.probes.surroundings import evaluation_mode

Reward = Callable[..., list[float]]


def reward_model(
    model: str | os.PathLike[str] | torch.nn.Module,
    tokenizer: Any = None,
    *,
    label: str | int | None = None,
    batch_size: int = 16,
) -> Reward:
    """Wraps a sequence classifier of prompt and completion as a reward function.

    The result follows TRL's convention, so ``zoopt.tune(objective=...)``, :func:`zoopt.metric` and
    :func:`zoopt.rewards` accept it. The classifier reads the prompt directly followed by the
    completion; for a conversation, both formatted by the tokenizer's chat template. It runs in eval
    mode without gradients, and must not be the model that is tuned.

    Args:
        model: a classifier, or a folder or hub name of one.
        tokenizer: its tokenizer; by default loaded from the same place.
        label: name or number of the output whose probability, in [0, 1], is the reward. A
            classifier with one output takes no label; its raw output is the reward.
        batch_size: texts per forward.

    Raises:
        ValueError: there are several outputs and no label, or no such label.
        TypeError: a model without a tokenizer.

    Example::

        reward = zoopt.reward_model("path/to/sentiment-classifier", label="POSITIVE")
        zoopt.tune(model, task=task, objective=reward)
    """
    if isinstance(model, str | os.PathLike):
        model, tokenizer = _load(os.fspath(model), tokenizer)
    elif tokenizer is None:
        raise TypeError(
            "reward_model got a model without a tokenizer: pass both, or the folder of both"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    return _Classifier(model, tokenizer, _column(model, label), batch_size)


class _Classifier:
    """A reward function that evaluates a sequence classifier on prompt and completion."""

    __name__ = "reward_model"

    def __init__(
        self, model: torch.nn.Module, tokenizer: Any, column: int | None, batch_size: int
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._column, self._batch_size = column, batch_size
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        config: Any = model.config
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
        self._began = _first_elements(model)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        """Returns the reward of each completion."""
        self._require_untouched()
        tokens = [self._joined(*pair) for pair in zip(prompts, completions, strict=True)]
        found: list[float] = []
        with evaluation_mode(self._model), torch.no_grad():
            for start in range(0, len(tokens), self._batch_size):
                found += self._outputs(tokens[start : start + self._batch_size]).tolist()
        return found

    def _joined(self, prompt: Any, completion: Any) -> dict[str, Any]:
        """Tokenizes prompt and completion; a chat template adds the special tokens itself."""
        if isinstance(prompt, str):
            text, special = prompt + str(completion), True
        else:
            messages, special = [*prompt, *completion], False
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        side = self._tokenizer.truncation_side
        self._tokenizer.truncation_side = "left"  # keeps the completion, which is at the end
        try:
            return dict(self._tokenizer(text, truncation=True, add_special_tokens=special))
        finally:
            self._tokenizer.truncation_side = side

    def _outputs(self, tokens: list[dict[str, Any]]) -> torch.Tensor:
        inputs = self._tokenizer.pad(tokens, return_tensors="pt")
        device = next(self._model.parameters()).device
        logits: torch.Tensor = self._model(**inputs.to(device)).logits.float()
        return logits[:, 0] if self._column is None else logits.softmax(dim=1)[:, self._column]

    def _require_untouched(self) -> None:
        """Raises if a parameter changed, which means that the reward model is being tuned."""
        now = _first_elements(self._model)
        changed = [name for name, value in self._began.items() if now[name] != value]
        if changed:
            raise ValueError(
                f"the reward model's parameter {changed[0]} has changed since reward_model was "
                "called: it is itself being tuned, and would reward its own perturbation. Pass "
                "a separate model to reward_model, such as copy.deepcopy(model)"
            )


def _first_elements(model: torch.nn.Module) -> dict[str, float]:
    """The first element of each parameter, which every probe of any engine changes.

    They are read together from each device, because each read waits for it.
    """
    by_device: dict[torch.device, dict[str, torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.numel():
            first = parameter.detach().flatten()[0].float()
            by_device.setdefault(parameter.device, {})[name] = first
    return {
        name: value
        for firsts in by_device.values()
        for name, value in zip(firsts, torch.stack(list(firsts.values())).tolist(), strict=True)
    }


def _column(model: torch.nn.Module, label: str | int | None) -> int | None:
    """The index of a label's output; None for a model with one output."""
    config: Any = model.config
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if label is None:
        if config.num_labels == 1:
            return None
        raise ValueError(
            f"the reward model has {config.num_labels} outputs: choose the reward with label=..., "
            f"one of {', '.join(map(repr, names.values()))}"
        )
    if config.num_labels == 1:
        raise ValueError(
            f"the reward model has one output, which is the reward: remove label={label!r}"
        )
    for index, name in names.items():
        if label in (index, name):
            return index
    raise ValueError(
        f"label={label!r} is not one of the reward model's: {', '.join(map(repr, names.values()))}"
    )


def _load(name: str, tokenizer: Any) -> tuple[torch.nn.Module, Any]:
    import transformers
    from transformers.utils import logging

    where = os.path.expanduser(os.path.expandvars(name))
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if tokenizer is None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(where)
    if torch.cuda.is_available():
        model.to("cuda")
    made: torch.nn.Module = model
    return made, tokenizer
