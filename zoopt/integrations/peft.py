"""PEFT: what tuning an adapter needs beyond what it is already, trainable parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoopt.probes.surroundings import evaluation_mode


def prefix_from_tokens(model: Any, ids: Sequence[int] | None = None, *, seed: int = 0) -> None:
    """Sets a tuned prefix to what the base model makes of real tokens.

    A prefix is keys and values of each layer that come before the text's own. Random ones disturb
    a model so much that forward passes alone hardly find the way back, so the MeZO paper begins
    with the activations of real tokens (arXiv 2305.17333, appendix D): the model then answers as if
    these tokens preceded the text.

    Args:
        model: a ``PeftModel`` with ``PrefixTuningConfig(num_virtual_tokens=…)``, without
            ``prefix_projection``.
        ids: that many token ids, for example of an instruction; drawn from the vocabulary if not
            given, as the paper does.
        seed: what they are drawn from.

    Raises:
        ValueError: the adapter is no prefix, or there are more or fewer ids.
    """
    from peft import PeftType, initialize_kv_prefix_from_past_key_values

    config = model.active_peft_config
    if config.peft_type != PeftType.PREFIX_TUNING:
        raise ValueError(f"the adapter is {config.peft_type.value}, not PREFIX_TUNING")
    wanted: int = config.num_virtual_tokens
    if ids is None:
        words = model.get_input_embeddings().num_embeddings
        drawn = torch.Generator().manual_seed(seed)
        ids = torch.randint(words, (wanted,), generator=drawn).tolist()
    if len(ids) != wanted:
        raise ValueError(f"{len(ids)} ids were given for a prefix of {wanted} tokens")
    rows = torch.tensor([list(ids)], device=model.device)
    with torch.no_grad(), evaluation_mode(model), model.disable_adapter():
        told = model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=True)
    initialize_kv_prefix_from_past_key_values(model, past_key_values=told.past_key_values)
