"""The conformance kit: what every member of an axis must do, whoever wrote it.

zoopt's own tests run these checks over the registry, so a new member is tested because it is
registered. An estimator, direction or update rule of another package is held to the same by
calling them from its tests; each raises ``AssertionError`` with what was found and expected.

>>> import zoopt
>>> check_direction(zoopt.Rademacher())
>>> check_estimator(lambda: zoopt.SPSA(eps=1e-3), zoopt.Rademacher(), samples=200)
>>> check_update(zoopt.SGD)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoopt.engines import InPlace
from zoopt.estimators import ZOEstimator
from zoopt.interfaces import (
    Direction,
    Displacement,
    GradientEstimate,
    Probe,
    Slot,
    Terms,
    UpdateRule,
    UpdateStep,
)
from zoopt.seeds import direction_seeds

SIGMAS = 5.0
"""How many standard errors a statistic may be off. All seeds are fixed, so outcomes are as well."""

VARIANCES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda g: g @ g + g**2,
    "rademacher": lambda g: g @ g - g**2,
    "sphere": lambda g: len(g) / (len(g) + 2) * (g @ g + 2 * g**2) - g**2,
}
"""Variance of each component of (gᵀz)z by family, from the fourth moments of z.

E[z_i²z_j²] is 1 for independent components and d/(d+2) on the sphere; E[z_i⁴] is 3, 1 and 3d/(d+2).
"""


def make_slots(
    shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float32
) -> tuple[Slot, ...]:
    """A θ of ones with tensors of the given shapes, all in one group."""
    return tuple(
        Slot(index, f"param.{index}", torch.ones(shape, dtype=dtype))
        for index, shape in enumerate(shapes)
    )


def noise(
    direction: Direction,
    shape: Sequence[int],
    seed: int,
    index: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """z(seed)[index] as a tensor: what a direction adds to zeros."""
    z = torch.zeros(tuple(shape), dtype=dtype)
    direction.add_(z, index, ((seed, 1.0),))
    return z


def materialize(direction: Direction, slots: Sequence[Slot], terms: Terms) -> Tensor:
    """Σ_k c_k z(s_k) over all of θ in fp64, as one vector of d components."""
    parts = []
    for slot in slots:
        part = torch.zeros(slot.tensor.shape, dtype=torch.float64)
        direction.add_(part, slot.index, terms)
        parts.append(part.flatten())
    return torch.cat(parts)


# --------------------------------------------------------------------------------------- directions


def check_direction(direction: Direction, *, samples: int = 1000) -> None:
    """Holds a direction family to the contract of :class:`zoopt.interfaces.Direction`.

    z is a function of (seed, tensor index) alone; adding it is linear, in place, rounded once,
    indifferent to shape, strides and global random states; rows equal the whole; E[z zᵀ] = I.

    Args:
        direction: a family that is not in use. It is bound to small tensors here.
        samples: seeds that the moments are estimated from.

    Raises:
        AssertionError: with the first property that does not hold.
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
    _require(
        torch.equal(z, noise(direction, (6, 4), seed=1)), "z(seed) differs when made a second time"
    )
    direction.bind(slots)
    _require(torch.equal(z, noise(direction, (6, 4), seed=1)), "z(seed) differs after bind()")
    _require(
        not torch.equal(z, noise(direction, (6, 4), seed=1, index=1)),
        "tensors of equal shape get equal noise: the tensor's index has to enter the key",
    )
    for other in (0, 2, 1 << 32 | 1, 1 << 63 | 1):
        _require(
            not torch.equal(z, noise(direction, (6, 4), seed=other)),
            f"seeds 1 and {other} give the same z: all 64 bits of a seed have to enter the key",
        )
    _require(torch.equal(state, torch.get_rng_state()), "torch's global generator was used")


def _check_addition(direction: Direction, slots: Sequence[Slot]) -> None:
    terms = ((1, 0.5), (2, -0.25), (3, 2.0))
    for slot in slots:
        theta = slot.tensor.clone()
        address = theta.data_ptr()
        direction.add_(theta, slot.index, terms, decay=0.75)
        _require(theta.data_ptr() == address, f"{slot.name} was moved in memory")
        expected = 0.75 * torch.ones(theta.shape, dtype=torch.float64)
        for seed, c in terms:
            expected += c * noise(direction, theta.shape, seed, slot.index, torch.float64)
        _require(
            torch.allclose(theta.double(), expected, rtol=1e-5, atol=1e-5),
            f"decay · θ + Σ c z(s) is off by {_worst(theta, expected)} for shape {theta.shape}",
        )
        theta = slot.tensor.clone()
        direction.add_(theta, slot.index, ())
        _require(torch.equal(theta, slot.tensor), "adding no terms changed the tensor")
    for dtype in (torch.float16, torch.bfloat16):
        exact = torch.ones(6, 4)
        direction.add_(exact, 0, terms, decay=0.75)
        half = torch.ones(6, 4, dtype=dtype)
        direction.add_(half, 0, terms, decay=0.75)
        _require(
            torch.equal(half, exact.to(dtype)),
            f"a sum in {dtype} is not the fp32 sum rounded once",
        )


def _check_layouts(direction: Direction) -> None:
    base = noise(direction, (6, 4), seed=1)
    strided = torch.zeros(12, 8)[::2, ::2]
    transposed = torch.zeros(4, 6).t()
    for name, tensor in (("strided", strided), ("transposed", transposed)):
        direction.add_(tensor, 0, ((1, 1.0),))
        _require(torch.equal(tensor, base), f"a {name} tensor gets other noise than a dense one")


def _check_rows(direction: Direction) -> None:
    terms = ((1, 0.5), (2, -0.25))
    ids = torch.tensor([[3, 0, 3], [5, 1, 2]])
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.linspace(-1, 1, 24).view(6, 4).to(dtype)
        kept, whole = matrix.clone(), matrix.clone()
        rows = direction.rows(matrix, ids, 0, terms)
        direction.add_(whole, 0, terms)
        _require(torch.equal(matrix, kept), "rows() wrote the matrix")
        _require(torch.equal(rows, whole[ids]), f"rows() differ from rows of add_() in {dtype}")


def _check_second_moments(direction: Direction, samples: int) -> None:
    slots = make_slots([(2, 2), (3,)])
    direction.bind(slots)
    z = torch.stack([materialize(direction, slots, ((s, 1.0),)) for s in _seeds(samples)])
    _require_mean(z, torch.zeros(7, dtype=torch.float64), "E[z]")
    products = (z.unsqueeze(1) * z.unsqueeze(2)).flatten(1)
    _require_mean(products, torch.eye(7, dtype=torch.float64).flatten(), "E[z zᵀ]")


# --------------------------------------------------------------------------------------- estimators


class Quadratic:
    """f(x) = ½ xᵀAx + bᵀx over a small θ, whose gradient and estimates have a closed form.

    Args:
        direction: the family that probes move along. It is bound to this θ.
    """

    def __init__(self, direction: Direction) -> None:
        self.slots = make_slots([(2, 3), (4,)], torch.float64)
        self.direction = direction
        direction.bind(self.slots)
        self.d = sum(slot.tensor.numel() for slot in self.slots)
        generator = torch.Generator().manual_seed(1)
        root = torch.randn(self.d, self.d, dtype=torch.float64, generator=generator)
        self.a = root @ root.T / self.d
        self.b = torch.randn(self.d, dtype=torch.float64, generator=generator)
        self.x = torch.ones(self.d, dtype=torch.float64)
        self.probes: list[Probe] = []
        self._known: dict[int, Tensor] = {}

    @property
    def gradient(self) -> Tensor:
        """∇f at x, shape (d,)."""
        return self.a @ self.x + self.b

    def z(self, seed: int) -> Tensor:
        """The direction of a seed, shape (d,)."""
        if seed not in self._known:
            self._known[seed] = materialize(self.direction, self.slots, ((seed, 1.0),))
        return self._known[seed]

    def vector(self, terms: Terms) -> Tensor:
        """Σ c z(s), shape (d,)."""
        total = torch.zeros(self.d, dtype=torch.float64)
        for seed, c in terms:
            total += c * self.z(seed)
        return total

    def evaluate(self, probes: Sequence[Probe]) -> list[float]:
        """f at x + Σ a z(s) for each probe; what an estimator is given."""
        self.probes += probes
        points = [self.x + self.vector(probe.terms) for probe in probes]
        return [float(0.5 * x @ self.a @ x + self.b @ x) for x in points]


def check_estimator(
    make_estimator: Callable[[], ZOEstimator],
    direction: Direction,
    *,
    samples: int = 1000,
    unbiased: bool = True,
    two_sided: bool = True,
) -> None:
    """Holds an estimator to its contract, and to the closed form of its family on a quadratic.

    Args:
        make_estimator: makes the estimator, the same one at each call.
        direction: the family of z. Closed-form variances are known for those in ``VARIANCES``.
        samples: estimates that mean and variance are taken over.
        unbiased: whether E[ĝ] = ∇f on a quadratic is claimed.
        two_sided: whether the coefficients are claimed to be the directional derivatives that
            symmetric differences give, exact for a quadratic; of them follows the variance.

    Raises:
        AssertionError: with the first property that does not hold.
    """
    _check_estimate(make_estimator, Quadratic(direction))
    problem = Quadratic(direction)
    estimates = _estimates(make_estimator(), problem, samples)
    if two_sided:
        _check_exact_along_z(make_estimator(), problem, estimates)
    vectors = torch.stack([problem.vector(estimate.terms) for estimate in estimates])
    if unbiased:
        _require_mean(vectors, problem.gradient, "E[ĝ]")
    family = VARIANCES.get(direction.name)
    if two_sided and family is not None:
        expected = family(problem.gradient) / make_estimator().n
        _require_mean((vectors - problem.gradient) ** 2, expected, "the variance of ĝ")


def _estimates(estimator: ZOEstimator, problem: Quadratic, number: int) -> list[GradientEstimate]:
    return [
        estimator.estimate(problem.evaluate, direction_seeds(7, step, estimator.n), estimator.eps)
        for step in range(number)
    ]


def _check_estimate(make_estimator: Callable[[], ZOEstimator], problem: Quadratic) -> None:
    estimator = make_estimator()
    seeds = direction_seeds(0, 0, estimator.n)
    state = torch.get_rng_state()
    asked: list[float] = []

    def evaluate(probes: Sequence[Probe]) -> list[float]:
        losses = problem.evaluate(probes)
        asked.extend(losses)
        return losses

    estimate = estimator.estimate(evaluate, seeds, estimator.eps)
    _require(torch.equal(state, torch.get_rng_state()), "torch's global generator was used")
    _require(
        len(estimate.coefficients) == len(estimate.seeds),
        f"{len(estimate.coefficients)} coefficients for {len(estimate.seeds)} seeds",
    )
    _require(
        set(estimate.seeds) <= set(seeds),
        f"the estimate moves along {set(estimate.seeds) - set(seeds)}, which it was not given",
    )
    _require(
        estimate.losses == tuple(asked),
        "losses are not what the probes returned, in order: a log could not repeat the estimate",
    )
    again = make_estimator().estimate(problem.evaluate, seeds, estimator.eps)
    _require(estimate == again, "the same seeds and losses give another estimate")
    replayed = iter(estimate.losses)
    repeated = make_estimator().estimate(
        lambda probes: [next(replayed) for _ in probes], seeds, estimator.eps
    )
    _require(estimate == repeated, "the estimate cannot be computed again from its losses")
    used = {seed for probe in problem.probes for seed, _ in probe.terms}
    _require(used <= set(seeds), "a probe goes along a direction that was not given")


def _check_exact_along_z(
    estimator: ZOEstimator, problem: Quadratic, estimates: Sequence[GradientEstimate]
) -> None:
    for estimate in estimates[:100]:
        for seed, c in estimate.terms:
            expected = float(problem.gradient @ problem.z(seed)) / estimator.n
            rounding = 8 * 2.0**-53 * max(map(abs, estimate.losses)) / estimator.eps
            _require(
                math.isclose(c, expected, rel_tol=1e-9, abs_tol=rounding),
                f"the coefficient along seed {seed} is {c}, and ∇fᵀz/n is {expected}",
            )


# ------------------------------------------------------------------------------------- update rules


def check_update(make_update: Callable[[], UpdateRule], direction: Direction | None = None) -> None:
    """Holds an update rule to its contract with the in-place engine.

    It goes downhill, decays what it is told to, is a function of its inputs, keeps θ where it is in
    memory, and keeps what dense state it has in fp32 also for half-precision tensors.

    Args:
        make_update: makes the rule, the same one at each call.
        direction: the family of z; Gaussian where none is given.

    Raises:
        AssertionError: with the first property that does not hold.
    """
    if direction is None:
        from zoopt.directions import Gaussian

        direction = Gaussian()
    first, again = _Run(make_update(), direction), _Run(make_update(), direction)
    addresses = [slot.tensor.data_ptr() for slot in first.slots]
    before = first.theta()
    first.apply(((1, 1.0), (2, -0.5)))
    moved = first.theta() - before
    g = materialize(direction, first.slots, ((1, 1.0), (2, -0.5)))
    _require(float(moved @ g) < 0, "the first update does not go downhill along ĝ")
    again.apply(((1, 1.0), (2, -0.5)))
    for run in (first, again):
        run.apply(((3, 0.7),))
    _require(torch.equal(first.theta(), again.theta()), "the same updates end elsewhere")
    _require(addresses == [slot.tensor.data_ptr() for slot in first.slots], "θ was moved in memory")
    decayed = _Run(make_update(), direction)
    decayed.apply(((1, 0.0),), decay={0: 0.5, 1: 1.0, 2: 1.0})
    values = [slot.tensor.double().mean().item() for slot in decayed.slots]
    _require(
        values == [0.5, 1.0, 1.0],
        f"for ĝ = 0 and decay 0.5, 1 and 1, ones became {values}: decay is θ ← decay · θ, "
        "decoupled from the gradient",
    )
    half = _Run(make_update(), direction, torch.bfloat16)
    half.apply(((1, 1.0),))
    for state in half.states.values():
        for name, value in state.items():
            _require(
                not isinstance(value, Tensor) or value.dtype == torch.float32,
                f"the state {name!r} of a bf16 tensor is not in fp32",
            )


class _Run:
    """θ of ones under an update rule, moved by estimates that are given."""

    def __init__(
        self, update: UpdateRule, direction: Direction, dtype: torch.dtype = torch.float32
    ) -> None:
        self.slots = make_slots([(3, 5), (3, 5), (4,)], dtype)
        direction.bind(self.slots)
        self.update, self.direction = update, direction
        self.engine = InPlace(self.slots, direction)
        self.states: dict[int, dict[str, Any]] = {slot.index: {} for slot in self.slots}

    def apply(self, terms: Terms, decay: Mapping[int, float] | None = None) -> None:
        self.update.apply(
            UpdateStep(
                slots=self.slots,
                gradient=Displacement((terms,)),
                lr=(0.125,),
                decay=decay or {slot.index: 1.0 for slot in self.slots},
                engine=self.engine,
                direction=self.direction,
                state=lambda slot: self.states[slot.index],
            )
        )
        self.engine.settle()

    def theta(self) -> Tensor:
        return torch.cat([slot.tensor.double().flatten() for slot in self.slots])


# --------------------------------------------------------------------------------------- statistics


def _seeds(number: int) -> list[int]:
    return [direction_seeds(3, step, 1)[0] for step in range(number)]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _require_mean(samples: Tensor, expected: Tensor, what: str) -> None:
    """The mean over dimension 0 is as expected, within ``SIGMAS`` standard errors."""
    mean = samples.mean(dim=0)
    error = samples.std(dim=0) / math.sqrt(len(samples)) + 1e-9 * (1 + expected.abs())
    off = ((mean - expected) / error).abs()
    worst = int(off.argmax())
    _require(
        bool((off < SIGMAS).all()),
        f"{what}: component {worst} averages {mean[worst]:.6g} over {len(samples)} samples and "
        f"should be {expected[worst]:.6g}, which is {off[worst]:.1f} standard errors off",
    )


def _worst(found: Tensor, expected: Tensor) -> float:
    return max((found.double() - expected).abs().flatten().tolist(), default=0.0)
