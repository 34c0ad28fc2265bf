"""Whether a closure takes a population."""

import functools

import pytest
import torch

from zoopt.probes.population import takes_population


class Model:
    def alone(self):
        return 1.0

    def together(self, population):
        return population


@pytest.mark.parametrize(
    ("closure", "takes"),
    [
        (lambda: 1.0, False),
        (lambda population: 1.0, True),
        (lambda population, batch=None: 1.0, True),
        (lambda batch=None: 1.0, False),
        (lambda *args, **kwargs: 1.0, False),
        (lambda *, batch=None: 1.0, False),
        (Model().alone, False),
        (Model().together, True),
        (torch.no_grad()(lambda: 1.0), False),
        (torch.no_grad()(lambda population: 1.0), True),
        (functools.partial(lambda a, b: 1.0, 1), True),
        (functools.partial(lambda a: 1.0, 1), False),
    ],
)
def test_a_closure_takes_a_population_if_it_has_an_argument_that_must_be_given(closure, takes):
    assert takes_population(closure) is takes
