"""Steps of models whose forward takes microseconds, so that all else in a step shows."""

from functools import partial

import torch

from benchmarks.step_cost.case import Case
from benchmarks.step_cost.methods import COMPARED, NEVERGRAD_SPSA, THREE_PASS_GAUSSIAN, TORCHZERO

ROWS = 64


def _layers(number, width):
    """Linear layers with tanh after each, and the mean square of their outputs on random rows."""
    layers = [torch.nn.Linear(width, width) for _ in range(number)]
    model = torch.nn.Sequential(*(part for each in layers for part in (each, torch.nn.Tanh())))
    rows = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def value():
        return model(rows).square().mean().item()

    return model.eval(), value


def _name(number, width):
    parameters = number * (width * width + width)
    return f"{number} × Linear({width}, {width}), {parameters:,} parameters"


SMALL = {
    _name(number, width): Case(
        partial(_layers, number, width),
        COMPARED | THREE_PASS_GAUSSIAN | TORCHZERO | NEVERGRAD_SPSA,
        rounds=300,
    )
    for number, width in ((1, 2), (3, 64), (20, 64), (8, 256))
}
