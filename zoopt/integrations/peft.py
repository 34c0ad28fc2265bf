"""PEFT: initialization of prefix-tuning adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoopt.probes.surroundings import evaluation_mode


def prefix_from_tokens(model: Any, ids: Sequence[int] | None = None, *, seed: int = 0) -> None:
    """Initializes a tuned prefix with the base model's activations on real tokens.

    A prefix is a set of keys and values in each layer that precede those of the text. Random ones
    disturb a model so much that forward passes alone hardly recover it, so the MeZO paper starts
    from the activations of real tokens (arXiv 2305.17333, appendix D): the model then behaves as if
    these tokens preceded the text.

    Args:
        model: a ``PeftModel`` with ``PrefixTuningConfig(num_virtual_tokens=…)``, without
            ``prefix_projection``.
        ids: ``num_virtual_tokens`` token ids, for example of an instruction; by default drawn from
            the vocabulary, as in the paper.
        seed: seed for drawing them.

    Raises:
        ValueError: the adapter is not a prefix, or the number of ids is wrong.
    """
    from peft import PeftType, initialize_kv_prefix_from_past_key_values

    config = model.active_peft_config
    if config.peft_type != PeftType.PREFIX_TUNING:
        raise ValueError(f"the adapter is {config.peft_type.value}, expected PREFIX_TUNING")
    wanted: int = config.num_virtual_tokens
    if ids is None:
        words = model.get_input_embeddings().num_embeddings
        drawn = torch.Generator().manual_seed(seed)
        ids = torch.randint(words, (wanted,), generator=drawn).tolist()
    if len(ids) != wanted:
        raise ValueError(f"got {len(ids)} ids for a prefix of {wanted} tokens")
    rows = torch.tensor([list(ids)], device=model.device)
    with torch.no_grad(), evaluation_mode(model), model.disable_adapter():
        told = model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=True)
    initialize_kv_prefix_from_past_key_values(model, past_key_values=told.past_key_values)
