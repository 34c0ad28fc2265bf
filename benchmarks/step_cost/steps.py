"""Steps of every configuration on models, precisions and objectives of several kinds."""

from functools import partial

import torch

from benchmarks import batches, models
from benchmarks.step_cost.case import Case
from benchmarks.step_cost.methods import (
    COMPARED,
    FLOOR,
    FROM_REPOSITORY,
    LIMIT,
    NEVERGRAD,
    NEVERGRAD_TOO_LARGE,
    REPOSITORY,
    THREE_PASS,
    THREE_PASS_GAUSSIAN,
    TORCHZERO,
)

NEW_TOKENS = 32


@torch.no_grad()
def _loss(model, batch):
    return batches.last_token_loss(model, batch).item()


@torch.no_grad()
def _generated(model, inputs):
    """The mean token id of a greedy continuation: any number will do."""
    return batches.generate(model, inputs, NEW_TOKENS).float().mean().item()


def _sentences(dtype=torch.float32):
    model, tokenizer = models.smollm2(dtype)
    asked, options = batches.sentences(tokenizer), batches.options(tokenizer)

    @torch.no_grad()
    def value(as_in_repository=False):
        if as_in_repository:
            return batches.options_loss(model, options).item()
        return batches.last_token_loss(model, asked).item()

    return model, value


def _prefill():
    model, _ = models.smollm2()
    return random(model, 8, 128)


def _generation():
    model, tokenizer = models.smollm2()
    inputs = dict(batches.sentences(tokenizer, 1).inputs)
    del inputs["position_ids"]  # generate makes its own
    return model, partial(_generated, model, inputs)


def random(model, rows=16, length=32):
    """The model, and its loss on tokens drawn alike from its vocabulary."""
    return model, partial(_loss, model, batches.random_tokens(model, rows, length))


HEADLINE = "SmolLM2-135M, 16 sentences"
PREFILL = "SmolLM2-135M, 8 × 128 tokens"

STEPS = {
    HEADLINE: Case(
        _sentences,
        COMPARED | LIMIT | FROM_REPOSITORY | THREE_PASS_GAUSSIAN | TORCHZERO | NEVERGRAD_TOO_LARGE,
        rounds=3,
        peaks=(FLOOR, THREE_PASS, REPOSITORY),
    ),
    "SmolLM2-135M in bf16, 16 sentences": Case(
        partial(_sentences, torch.bfloat16), COMPARED, rounds=2
    ),
    "stories15M, 16 × 32 tokens": Case(
        lambda: random(models.stories15m()[0]),
        COMPARED | THREE_PASS_GAUSSIAN | TORCHZERO | NEVERGRAD,
        rounds=3,
    ),
    "OPT-125M's shape, 16 × 32 tokens": Case(
        lambda: random(models.opt("125m")), COMPARED, rounds=2
    ),
    PREFILL: Case(_prefill, COMPARED, rounds=2),
    f"SmolLM2-135M, a sentence, {NEW_TOKENS} new tokens": Case(_generation, COMPARED, rounds=1),
}
