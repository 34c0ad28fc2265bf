"""Loads models and tokenizers of Hugging Face transformers from a folder or the hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoopt.support.names import unknown

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_NO_LIMIT = 1 << 20
"""A larger token limit of a tokenizer means no limit (OPT's is 10³⁰)."""


def load(
    name: str, auto: str, dtype: str, labels: Sequence[str] = ()
) -> tuple[torch.nn.Module, Any]:
    """Loads a model and its tokenizer, which gets the model's token limit if it has none.

    Args:
        name: a folder, in which ``~`` and environment variables are expanded, or a hub name. For a
            PEFT adapter, its base model is loaded with the adapter's weights trainable.
        auto: the class of transformers that loads it, such as ``"AutoModelForCausalLM"``, for which
            encoder-decoders are loaded by ``"AutoModelForSeq2SeqLM"``.
        dtype: dtype of the weights, such as ``"float32"``.
        labels: the classes of a sequence classifier, one output each; none for a single output.

    Raises:
        ValueError: the model's head has another number of outputs.
    """
    import transformers
    from transformers.utils import logging

    if dtype not in _DTYPES:
        raise ValueError(unknown("dtype", dtype, _DTYPES))
    where = os.path.expanduser(os.path.expandvars(name))
    if name.startswith(("~", ".", "/", "$")) and not Path(where).is_dir():
        raise FileNotFoundError(f"model={name!r}: the folder {where} does not exist")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    classifies = auto == "AutoModelForSequenceClassification"
    if classifies:
        options["num_labels"] = len(labels) or 1
    if auto == "AutoModelForCausalLM" and _is_encoder_decoder(where):
        auto = "AutoModelForSeq2SeqLM"
    try:
        model: Any = getattr(transformers, auto).from_pretrained(where, **options)
    except RuntimeError as error:
        if not classifies or "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(_mismatch(name, where, labels)) from None
    if classifies:
        pad = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and tokenizer.model_max_length > _NO_LIMIT:
        tokenizer.model_max_length = positions
    if getattr(model, "_hf_peft_config_loaded", False):
        model.set_adapter(model.active_adapters())  # unfreezes them
    if torch.cuda.is_available():
        model.to("cuda")
    made: torch.nn.Module = model
    return made, tokenizer


def _mismatch(name: str, where: str, labels: Sequence[str]) -> str:
    import transformers

    config: Any = transformers.AutoConfig.from_pretrained(where)
    own = ", ".join(map(str, config.id2label.values()))
    given = f"labels has {len(labels)}: {', '.join(labels)}" if labels else "a regression has one"
    return (
        f"the head of model={name!r} has {config.num_labels} outputs, {own}, but {given}. Name one "
        "label for each output, in that order, or use a model without a trained head"
    )


def _is_encoder_decoder(where: str) -> bool:
    import transformers

    try:
        config: Any = transformers.AutoConfig.from_pretrained(where)
    except (OSError, ValueError):  # the folder of an adapter has no configuration of a model
        return False
    return bool(config.is_encoder_decoder)
