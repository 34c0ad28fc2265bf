"""Models and tokenizers of Hugging Face transformers, from a folder or the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def load(name: str, kind: str, dtype: str, labels: int) -> tuple[torch.nn.Module, Any]:
    """A model for a kind of task, and its tokenizer.

    Args:
        name: a folder, in which ``~`` and environment variables are expanded, or a hub name.
        kind: ``"verbalizer"`` and ``"generation"`` load a causal language model, others a sequence
            classifier.
        dtype: dtype of the weights, such as ``"float32"``.
        labels: outputs of a classification head.
    """
    import transformers
    from transformers.utils import logging

    where = os.path.expanduser(os.path.expandvars(name))
    if name.startswith(("~", ".", "/", "$")) and not Path(where).is_dir():
        raise FileNotFoundError(f"model={name!r}: there is no folder {where}")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if kind in ("verbalizer", "generation"):
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(where, **options)
    else:
        options["num_labels"] = labels
        model = transformers.AutoModelForSequenceClassification.from_pretrained(where, **options)
        model.config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    if torch.cuda.is_available():
        model.to("cuda")
    made: torch.nn.Module = model
    return made, tokenizer
