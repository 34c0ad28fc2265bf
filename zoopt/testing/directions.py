"""Conformance check for directions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from zoopt.interfaces import (
    Change,
    Direction,
    Slot,
    Terms,
)
from zoopt.testing.common import (
    make_slots,
    materialize,
    noise,
    require,
    require_mean,
    seeds_of,
    worst,
)


def check_direction(direction: Direction, *, samples: int = 1000) -> None:
    """Checks a direction against the contract of :class:`zoopt.interfaces.Direction`.

    z must depend on (seed, tensor index) alone; adding it must be linear, in place, rounded once,
    and independent of shape, strides and global random states; ``rows()`` must equal the rows of
    the whole matrix; E[z zᵀ] = I.

    Args:
        direction: a direction that is not in use; it is bound to small tensors here.
        samples: number of seeds for estimating the moments.

    Raises:
        AssertionError: names the first property that does not hold.
    """
    shapes = [(6, 4), (6, 4), (5,), (), (0,)]
    slots = make_slots(shapes)
    direction.bind(slots)
    _check_noise_is_a_function_of_its_key(direction, slots)
    _check_addition(direction, slots)
    _check_layouts(direction)
    _check_rows(direction)
    _check_second_moments(direction, samples)


def _check_noise_is_a_function_of_its_key(direction: Direction, slots: Sequence[Slot]) -> None:
    state = torch.get_rng_state()
    z = noise(direction, (6, 4), seed=1)
    require(torch.equal(z, noise(direction, (6, 4), seed=1)), "z(seed) differs at the second call")
    direction.bind(slots)
    require(torch.equal(z, noise(direction, (6, 4), seed=1)), "z(seed) differs after bind()")
    require(
        not torch.equal(z, noise(direction, (6, 4), seed=1, index=1)),
        "tensors of equal shape get equal noise: the key must include the tensor's index",
    )
    for other in (0, 2, 1 << 32 | 1, 1 << 63 | 1):
        require(
            not torch.equal(z, noise(direction, (6, 4), seed=other)),
            f"seeds 1 and {other} give the same z: the key must include all 64 bits of a seed",
        )
    require(torch.equal(state, torch.get_rng_state()), "torch's global generator was used")


def _check_addition(direction: Direction, slots: Sequence[Slot]) -> None:
    terms = ((1, 0.5), (2, -0.25), (3, 2.0))
    for slot in slots:
        theta = slot.tensor.clone()
        address = theta.data_ptr()
        direction.add_(Change.of(theta, slot.index, terms, decay=0.75))
        require(theta.data_ptr() == address, f"{slot.name} was moved in memory")
        expected = 0.75 * torch.ones(theta.shape, dtype=torch.float64)
        for seed, c in terms:
            expected += c * noise(direction, theta.shape, seed, slot.index, torch.float64)
        require(
            torch.allclose(theta.double(), expected, rtol=1e-5, atol=1e-5),
            f"decay · θ + Σ c z(s) is off by {worst(theta, expected)} for shape {theta.shape}",
        )
        _check_apart(direction, slot, terms, theta)
        theta = slot.tensor.clone()
        direction.add_(Change.of(theta, slot.index, ()))
        require(torch.equal(theta, slot.tensor), "adding no terms changed the tensor")
        direction.add_(Change.of(theta, slot.index, (), decay=0.5))
        require(torch.equal(theta, slot.tensor * 0.5), "decay without terms is not θ · decay")
        _check_apart(direction, slot, (), slot.tensor)
    for dtype in (torch.float16, torch.bfloat16):
        exact = torch.ones(6, 4)
        direction.add_(Change.of(exact, 0, terms, decay=0.75))
        half = torch.ones(6, 4, dtype=dtype)
        direction.add_(Change.of(half, 0, terms, decay=0.75))
        require(
            torch.equal(half, exact.to(dtype)),
            f"a sum in {dtype} is not the fp32 sum rounded once",
        )


def _check_apart(direction: Direction, slot: Slot, terms: Terms, expected: torch.Tensor) -> None:
    theta, into = slot.tensor.clone(), torch.full_like(slot.tensor, float("nan"))
    decay = 0.75 if terms else 1.0
    direction.add_(Change.of(theta, slot.index, terms, decay, into))
    require(torch.equal(theta, slot.tensor), "a change written to another tensor modified θ")
    require(torch.equal(into, expected), "a result written to another tensor differs from in place")


def _check_layouts(direction: Direction) -> None:
    base = noise(direction, (6, 4), seed=1)
    strided = torch.zeros(12, 8)[::2, ::2]
    transposed = torch.zeros(4, 6).t()
    for name, tensor in (("strided", strided), ("transposed", transposed)):
        direction.add_(Change.of(tensor, 0, ((1, 1.0),)))
        require(torch.equal(tensor, base), f"a {name} tensor gets different noise than a dense one")


def _check_rows(direction: Direction) -> None:
    ids = torch.tensor([[3, 0, 3], [5, 1, 2]])
    cases: tuple[Terms, ...] = (((1, 0.5), (2, -0.25)), ())
    for terms, dtype in itertools.product(cases, (torch.float32, torch.bfloat16)):
        matrix = torch.linspace(-1, 1, 24).view(6, 4).to(dtype)
        kept, whole = matrix.clone(), matrix.clone()
        rows = direction.rows(matrix, ids, 0, terms)
        direction.add_(Change.of(whole, 0, terms))
        require(torch.equal(matrix, kept), "rows() modified the matrix")
        require(torch.equal(rows, whole[ids]), f"rows() differs from the rows of add_() in {dtype}")


def _check_second_moments(direction: Direction, samples: int) -> None:
    slots = make_slots([(2, 2), (3,)])
    direction.bind(slots)
    z = torch.stack([materialize(direction, slots, ((s, 1.0),)) for s in seeds_of(samples)])
    require_mean(z, torch.zeros(7, dtype=torch.float64), "E[z]")
    products = (z.unsqueeze(1) * z.unsqueeze(2)).flatten(1)
    require_mean(products, torch.eye(7, dtype=torch.float64).flatten(), "E[z zᵀ]")
