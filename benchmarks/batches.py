"""What the benchmarked models are asked: batches, and the loss on their last token."""

from typing import NamedTuple

import torch

from benchmarks import models

TEMPLATE = "Review: {text}\nSentiment:"
LABELS = ("negative", "positive")


class Batch(NamedTuple):
    """Inputs of a model, and for each row the token to come, or for each review the right word."""

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor


def sentences(tokenizer, count=16):
    """The first reviews of the training set, padded on the left, and the word for their label."""
    rows = models.examples("train")[:count]
    words = [tokenizer(f" {row['label']}")["input_ids"][0] for row in rows]
    inputs = _padded(tokenizer, [TEMPLATE.format_map(row) for row in rows])
    return Batch(inputs, torch.tensor(words))


def options(tokenizer, count=16):
    """Each of those reviews with either word after it, and which of the two is right."""
    for label in LABELS:
        if len(tokenizer(f" {label}")["input_ids"]) != 1:
            raise ValueError(f"{label!r} is more than one token to this tokenizer")
    rows = models.examples("train")[:count]
    texts = [f"{TEMPLATE.format_map(row)} {label}" for row in rows for label in LABELS]
    right = [LABELS.index(row["label"]) for row in rows]
    return Batch(_padded(tokenizer, texts), torch.tensor(right))


def _padded(tokenizer, texts):
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return {**inputs, "position_ids": positions}


def random_tokens(model, rows, length):
    """Tokens drawn alike from the model's vocabulary."""
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (rows, length + 1), generator=drawn)
    ids = ids.to(model.device)
    return Batch({"input_ids": ids[:, :-1]}, ids[:, -1])


def last_token_losses(model, batch):
    """Of each row the cross-entropy of the token to come, in fp32."""
    logits = model(**batch.inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
    return torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")


def last_token_loss(model, batch):
    """Their mean."""
    return last_token_losses(model, batch).mean()


def options_loss(model, batch):
    """Cross-entropy between the words, as MeZO's repository computes it for classification.

    It forwards a row for each word, takes the logits of all tokens, and compares the words'
    log-probabilities: ``forward_wrap_with_option_len`` under ``--train_as_classification``
    (https://github.com/princeton-nlp/MeZO, large_models/utils.py and mezo.sh).
    """
    to_come = batch.inputs["input_ids"][:, 1:, None]
    logits = model(**batch.inputs, use_cache=False).logits[:, :-1]
    said = logits.log_softmax(-1).gather(-1, to_come)[:, -1, 0]  # a word's only token
    return torch.nn.functional.cross_entropy(said.view(len(batch.targets), -1), batch.targets)


def generate(model, inputs, new_tokens):
    """The tokens of a greedy continuation, which no end of the text cuts short."""
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    return model.generate(**inputs, **length, do_sample=False)[:, -new_tokens:]
