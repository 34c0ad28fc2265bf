"""The configurations whose steps are timed. Each takes (model, value) and gives its visit.

``value()`` is the objective where θ stands. Learning rates are so small that θ, and with it the
work, stays the same.
"""

from contextlib import contextmanager
from functools import partial
from itertools import count

import torch

import zoopt
from benchmarks.step_cost.reference import FourPasses
from benchmarks.step_cost.rounds import visit_of

LR, EPS = 1e-9, 1e-3
SEEDS = count()
"""Each configuration has a seed of its own: directions of small models are kept for a while."""
FLOOR = "two forwards"
MOVED = "two forwards, θ read and written twice"
CHAINED, CHAINED_GAUSSIAN = "in-place, chained, Rademacher", "in-place, chained, Gaussian"
THREE_PASS = "in-place, Rademacher"
PUBLISHED = "MeZO as published, Gaussian"
REPOSITORY = "MeZO with its repository's forward, Gaussian"


def two_forwards(model, value):
    """What a two-sided step cannot do without."""
    return visit_of(lambda: (value(), value()))


def moved_twice(model, value):
    """What a chained step cannot do without: the same, and the traffic of two passes over θ."""
    parameters = list(model.parameters())

    @torch.no_grad()
    def step():
        for _ in range(2):
            torch._foreach_mul_(parameters, 1.0)
            value()

    return visit_of(step)


def mezo(model, value, direction, engine="inplace"):
    """zoopt's MeZO, each step complete: three passes over θ in place, one with the overlay."""
    estimator = zoopt.MeZO(eps=EPS, direction=direction)
    optimizer = zoopt.ZOOptimizer(model, LR, estimator, engine=engine, seed=next(SEEDS))
    return visit_of(lambda: optimizer.step(value))


def chained_mezo(model, value, direction):
    """zoopt's MeZO as its own loops run it: an update shares a pass with the next step's probe."""
    estimator = zoopt.MeZO(eps=EPS, direction=direction)
    optimizer = zoopt.ZOOptimizer(model, LR, estimator, engine="inplace", seed=next(SEEDS))

    @contextmanager
    def visit():
        with optimizer.chain():
            optimizer.step(lambda: 0.0)  # leaves an update waiting, as a step in a chain finds one
            yield lambda: optimizer.step(value)

    return visit


def published_mezo(model, value):
    """MeZO as its paper states it."""
    reference = FourPasses(model.parameters(), LR, EPS)
    return visit_of(lambda: reference.step(value))


def repository_mezo(model, value):
    """The same passes around the forward of its repository, a row for each label's word."""
    reference = FourPasses(model.parameters(), LR, EPS)
    return visit_of(lambda: reference.step(lambda: value(True)))


def as_graph(make):
    """The same around a forward that is replayed; what records it is not timed."""

    def recorded(model, value):
        visit = make(model, lambda: value(True))

        @contextmanager
        def replayed():
            with visit() as step:
                step()
                yield step

        return replayed

    return recorded


def torchzero_mezo(model, value):
    """torchzero's MeZO, told to do without a third forward that only reports the loss."""
    import torchzero

    approximation = torchzero.m.MeZO(h=EPS, distribution="gaussian", return_approx_loss=True)
    optimizer = torchzero.Optimizer(model.parameters(), approximation, torchzero.m.LR(LR))

    @contextmanager
    def visit():
        yield lambda: optimizer.step(lambda backward=True: torch.tensor(value()))
        optimizer.zero_grad()  # it leaves a gradient as large as θ

    return visit


def nevergrad_spsa(model, value):
    """nevergrad's SPSA, two evaluations a step through its ask and tell.

    A visit begins anew, since nevergrad keeps what it evaluated: 16 bytes a parameter, in fp64 and
    as a key, of up to 300 evaluations.
    """
    import nevergrad

    parameters = list(model.parameters())

    def step(optimizer):
        for _ in range(2):
            candidate = optimizer.ask()
            vector = torch.from_numpy(candidate.value).to(parameters[0].dtype)
            torch.nn.utils.vector_to_parameters(vector, parameters)
            optimizer.tell(candidate, value())

    @contextmanager
    def visit():
        here = torch.nn.utils.parameters_to_vector(parameters).detach().double().numpy()
        optimizer = nevergrad.optimizers.SPSA(nevergrad.p.Array(init=here), budget=10**6)
        step(optimizer)
        yield partial(step, optimizer)

    return visit


def too_large(reason):
    """A configuration that the machine cannot hold, by arithmetic."""

    def make(model, value):
        @contextmanager
        def visit():
            parameters = sum(parameter.numel() for parameter in model.parameters())
            raise MemoryError(reason(parameters) + " (arithmetic)")
            yield

        return visit

    return make


COMPARED = {
    FLOOR: two_forwards,
    CHAINED: partial(chained_mezo, direction="rademacher"),
    CHAINED_GAUSSIAN: partial(chained_mezo, direction="gaussian"),
    THREE_PASS: partial(mezo, direction="rademacher"),
    "overlay, Rademacher": partial(mezo, direction="rademacher", engine="overlay"),
    PUBLISHED: published_mezo,
}
COPY = {"copy, Rademacher": partial(mezo, direction="rademacher", engine="copy")}
GRAPHS = {
    f"{FLOOR}, CUDA graph": as_graph(two_forwards),
    f"{CHAINED}, CUDA graph": as_graph(partial(chained_mezo, direction="rademacher")),
    "copy, Rademacher, CUDA graph": as_graph(partial(mezo, direction="rademacher", engine="copy")),
}
LIMIT = {MOVED: moved_twice}
FROM_REPOSITORY = {REPOSITORY: repository_mezo}
THREE_PASS_GAUSSIAN = {"in-place, Gaussian": partial(mezo, direction="gaussian")}
TORCHZERO = {"torchzero MeZO, Gaussian": torchzero_mezo}
NEVERGRAD_SPSA = {"nevergrad SPSA": nevergrad_spsa}
NEVERGRAD = NEVERGRAD_SPSA | {
    "nevergrad CMA": too_large(
        lambda d: f"a covariance of d² fp64 numbers is {8 * d**2 / 1e12:,.0f} TB"
    ),
}
NEVERGRAD_TOO_LARGE = NEVERGRAD | {
    "nevergrad SPSA": too_large(
        lambda d: f"it keeps up to 300 evaluations, {16 * d / 1e9:.1f} GB each"
    )
}
