"""What the benchmarked models are asked: batches, and the loss on their last token."""

from typing import NamedTuple

import torch

from benchmarks import models

TEMPLATE = "Review: {text}\nSentiment:"


class Batch(NamedTuple):
    """Inputs of a model, and for each row the token to come."""

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor


def sentences(tokenizer, count=16):
    """The first reviews of the training set, padded on the left, and the word for their label."""
    rows = models.examples("train")[:count]
    texts = [TEMPLATE.format_map(row) for row in rows]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    words = [tokenizer(f" {row['label']}")["input_ids"][0] for row in rows]
    return Batch({**inputs, "position_ids": positions}, torch.tensor(words))


def random_tokens(model, rows, length):
    """Tokens drawn alike from the model's vocabulary."""
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (rows, length + 1), generator=drawn)
    return Batch({"input_ids": ids[:, :-1]}, ids[:, -1])


def last_token_loss(model, batch):
    """Cross-entropy of the token to come, in fp32."""
    logits = model(**batch.inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
    return torch.nn.functional.cross_entropy(logits.float(), batch.targets)


def generate(model, inputs, new_tokens):
    """The tokens of a greedy continuation, which no end of the text cuts short."""
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    return model.generate(**inputs, **length, do_sample=False)[:, -new_tokens:]
