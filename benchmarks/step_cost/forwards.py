"""What is spared of the forwards: padding, and what the probes of a step have in common."""

from functools import partial

import torch

import zoopt
from benchmarks import models
from benchmarks.batches import TEMPLATE
from benchmarks.step_cost.case import Case
from benchmarks.step_cost.methods import LR
from benchmarks.step_cost.rounds import visit_of
from zoopt.tasks import TaskObjective

SENTENCES, BATCHES = 16, 3
UPPER_NORMS = ("model.layers.2?.*norm.weight", "model.norm.weight")


def _build(dtype):
    """SmolLM2, and the loss on some minibatches of reviews."""
    model, tokenizer = models.smollm2(dtype)
    task = zoopt.Verbalizer(
        models.examples("train")[: SENTENCES * BATCHES],
        tokenizer=tokenizer,
        template=TEMPLATE,
        verbalizer={"negative": " negative", "positive": " positive"},
    )
    objective = TaskObjective(task, zoopt.get_objective("cross_entropy"))

    def loss(padding_costs, batches=BATCHES):
        task.padding_costs = padding_costs
        for start in range(0, SENTENCES * batches, SENTENCES):
            value = objective.value(model, task.train[start : start + SENTENCES])
        return value

    return model, loss


def _padded(model, loss):
    return visit_of(lambda: loss(False))


def _grouped(model, loss):
    return visit_of(lambda: loss(True))


def _step(model, loss, share):
    optimizer = zoopt.ZOOptimizer(
        model, LR, zoopt.MeZO(eps=1e-2), "rademacher", params=UPPER_NORMS, share_prefix=share
    )
    return visit_of(lambda: optimizer.step(lambda: loss(True, 1)))


PADDING = {"one forward, padded": _padded, "groups of like length": _grouped}
SHARING = {
    "both probes whole": partial(_step, share=False),
    "what they share computed once": partial(_step, share=True),
}
_FP32, _BF16 = partial(_build, torch.float32), partial(_build, torch.bfloat16)

FORWARDS = {
    f"{BATCHES} minibatches of {SENTENCES} sentences, fp32": Case(_FP32, PADDING, rounds=5),
    f"{BATCHES} minibatches of {SENTENCES} sentences, bf16": Case(_BF16, PADDING, rounds=5),
    "a step on the norms of the upper third, fp32": Case(_FP32, SHARING, rounds=3),
}
