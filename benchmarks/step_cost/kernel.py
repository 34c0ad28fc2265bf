"""The kernel alone: one pass θ ← θ + c z(seed), against torch's addition of two equal tensors."""

from functools import partial

import torch

import zoopt
from benchmarks import models
from benchmarks.step_cost.case import Case
from benchmarks.step_cost.rounds import visit_of
from zoopt.interfaces import Change, Place

FLOOR = "torch add_"
ONE_TENSOR = "one tensor, fp32"


@torch.no_grad()
def _add(model, objective):
    others = [(parameter, torch.ones_like(parameter)) for parameter in model.parameters()]
    return visit_of(torch.no_grad()(lambda: [tensor.add_(other) for tensor, other in others]))


def _normal(model, objective):
    return visit_of(torch.no_grad()(lambda: [tensor.normal_() for tensor in model.parameters()]))


def _pass(model, objective, direction):
    optimizer = zoopt.ZOOptimizer(model, direction=direction)
    change = Change([Place(slot.tensor, slot.index) for slot in optimizer.slots], ((1, 1e-9),))
    return visit_of(lambda: optimizer.direction.add_(change))


METHODS = {
    FLOOR: _add,
    "Rademacher pass": partial(_pass, direction="rademacher"),
    "Gaussian pass": partial(_pass, direction="gaussian"),
    "torch normal_": _normal,
}


def one_tensor(dtype, elements=1 << 26):
    return torch.nn.ParameterList([torch.zeros(elements, dtype=dtype)]), None


KERNEL = {
    ONE_TENSOR: Case(partial(one_tensor, torch.float32), METHODS, rounds=20),
    "one tensor, bf16": Case(partial(one_tensor, torch.bfloat16), METHODS, rounds=20),
    "all of SmolLM2-135M, fp32": Case(lambda: (models.smollm2()[0], None), METHODS, rounds=10),
}
