"""Many probes in one forward: the batched engine against the model on as many rows, and on one."""

from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

import zoopt
from benchmarks import batches, models
from benchmarks.step_cost.case import Case
from benchmarks.step_cost.methods import EPS, LR
from benchmarks.step_cost.rounds import visit_of
from benchmarks.step_cost.steps import NEW_TOKENS

ROW, ROWS, PROBES, STEP = "one row", "K rows", "K probes", "K probes and update"
AGAIN = "K rows, results written and read once more"


class _WrittenAgain(TorchFunctionMode):
    """Accumulates products with weights onto zeros or biases: the traffic of adding anything."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.linear:
            return func(*args, **kwargs or {})
        x, weight, bias = (*args, None)[:3]
        rows = x.reshape(-1, x.shape[-1])
        out = x.new_zeros(len(rows), len(weight)) if bias is None else bias.repeat(len(rows), 1)
        return out.addmm_(rows, weight.mT).view(*x.shape[:-1], -1)


def _plain(model, values, k, mode=nullcontext):
    @torch.no_grad()
    def value():
        with mode():
            return values(zoopt.Population(k))

    return visit_of(value)


def _optimizer(model, k):
    estimator = zoopt.NSPSA(eps=EPS, n=k // 2)
    return zoopt.ZOOptimizer(model, LR, estimator, direction="lowrank", engine="batched")


def _probes(model, values, k):
    optimizer = _optimizer(model, k)

    @contextmanager
    def visit():
        yield lambda: optimizer.estimate(values)
        optimizer.step()  # and on to other directions

    return visit


def _step(model, values, k):
    optimizer = _optimizer(model, k)
    return visit_of(lambda: optimizer.step(values))


def methods(k):
    """The model on K rows, which is the floor, and on one; K probes; and a step of K probes.

    The model on K rows with its results written and read once more is the limit of code that adds
    perturbations to the results of a library's products.
    """
    return {
        ROWS: partial(_plain, k=k),
        AGAIN: partial(_plain, k=k, mode=_WrittenAgain),
        ROW: partial(_plain, k=1),
        PROBES: partial(_probes, k=k),
        STEP: partial(_step, k=k),
    }


def prefill_of(model):
    """A model, and its losses on one sequence of 32 random tokens."""
    batch = batches.random_tokens(model, 1, 32)

    def losses(population):
        rows = batches.last_token_losses(model, batches.Batch(*population.expand(tuple(batch))))
        return population.per_probe(rows).mean(1)

    return model, losses


def generation_of(model, inputs):
    """A model, and the mean token id of its greedy continuation: any number will do."""

    def values(population):
        tokens = batches.generate(model, population.expand(inputs), NEW_TOKENS)
        return population.per_probe(tokens.float()).mean((1, 2))

    return model, values


def _prefill():
    return prefill_of(models.smollm2()[0])


def _generation():
    model, tokenizer = models.smollm2()
    inputs = dict(batches.sentences(tokenizer, 1).inputs)
    del inputs["position_ids"]  # generate makes its own
    return generation_of(model, inputs)


def prefill(k):
    """The name of the case of K probes of one sequence."""
    return f"32 tokens, K = {k}"


def generation(k):
    """The name of the case of K probes of one greedy continuation."""
    return f"{NEW_TOKENS} new tokens, K = {k}"


_PREFILL_K, _GENERATION_K = (2, 8, 32), (32,)

PROBES_OF = {prefill(k): k for k in _PREFILL_K} | {generation(k): k for k in _GENERATION_K}
BATCHED = {prefill(k): Case(_prefill, methods(k), rounds=9) for k in _PREFILL_K} | {
    generation(k): Case(_generation, methods(k), rounds=3) for k in _GENERATION_K
}
