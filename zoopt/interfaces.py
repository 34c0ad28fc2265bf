"""The terms that all parts of zoopt share: probe, seed-space gradient, and the five axes.

Nothing here imports the rest of zoopt, so this file can be read first and alone.

A *seed* ``s`` (64 bits) names a random direction ``z(s)`` over the trainable parameters θ. It is
generated when it is needed and never stored. A list of ``(seed, coefficient)`` therefore stands for
a vector of any size in a few bytes, and that is what passes between the parts:

* an **estimator** (:class:`zoopt.ZOEstimator`) evaluates the objective at a few *probes*
  θ + Σ_k a_k z(s_k) and returns a :class:`GradientEstimate`, ĝ = Σ_k c_k z(s_k);
* an **engine** evaluates probes and commits updates, and owns the state that θ is in meanwhile;
* an **update rule** determines how ĝ moves θ;
* a **direction** determines the distribution of z;
* an **objective** (:class:`zoopt.Metric`, or any function) determines what number is tuned, and
  whether higher or lower is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

Terms = tuple[tuple[int, float], ...]
"""A vector in seed space: Σ coefficient · z(seed) for each (seed, coefficient)."""


@dataclass(frozen=True)
class Probe:
    """One place at which the objective is evaluated: θ + Σ_k a_k z(s_k) for (s_k, a_k) in terms."""

    terms: Terms


@dataclass(frozen=True)
class GradientEstimate:
    """The seed-space gradient ĝ = Σ_k c_k z(s_k), and the losses that it was computed from.

    Attributes:
        seeds: the K seeds s_k: those that the estimator was given, in order.
        coefficients: the K numbers c_k, in loss per unit of z (for SPSA the projected gradients,
            divided by K when there are several).
        losses: the losses of the probes, in the order of the probes.
    """

    seeds: tuple[int, ...]
    coefficients: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def terms(self) -> Terms:
        """The estimate as (seed, coefficient) pairs."""
        return tuple(zip(self.seeds, self.coefficients, strict=True))

    def clipped(self, bound: float | None) -> GradientEstimate:
        """The estimate with every coefficient clipped to [−bound, bound]; itself for None.

        >>> GradientEstimate((1, 2), (0.5, -9.0), (1.0, 2.0)).clipped(2.0).coefficients
        (0.5, -2.0)
        """
        if bound is None:
            return self
        kept = tuple(min(max(c, -bound), bound) for c in self.coefficients)
        return replace(self, coefficients=kept)


Evaluate = Callable[[Sequence[Probe]], list[float]]
"""The function that an estimator calls: probes in, their losses out, in the same order.

It takes several probes at once so that an engine may evaluate them in one forward.
"""

Value = Callable[[], Any]
"""Returns the closure's value at the current θ; an engine only passes it on."""

Values = Callable[[Any], list[Any]]
"""Returns the closure's value for each of the K probes of a :class:`zoopt.Population`."""


@dataclass(frozen=True)
class Slot:
    """One tensor of θ.

    Attributes:
        index: position in θ. Part of the key that z is generated from.
        name: the parameter's name, or ``"param.3"`` if it has none.
        tensor: the parameter itself; never rebound.
        group: which of the optimizer's parameter groups it belongs to.
        master: its values in fp32 if it is a vector in half precision; see ``masters.py``.
    """

    index: int
    name: str
    tensor: torch.Tensor = field(repr=False)
    group: int = 0
    master: torch.Tensor | None = field(default=None, repr=False)

    @property
    def exact(self) -> torch.Tensor:
        """The tensor that is perturbed and updated: the master if there is one, else the tensor."""
        return self.tensor if self.master is None else self.master


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of θ to be changed, and the tensor that the result is written to.

    Attributes:
        tensor: any real floating-point tensor, of any shape and strides.
        index: its position in θ, part of the key of z.
        into: the tensor that the result is written to, of the same shape and dtype; None to
            overwrite ``tensor``, which is otherwise not written.
    """

    tensor: torch.Tensor = field(repr=False)
    index: int
    into: torch.Tensor | None = field(default=None, repr=False)

    @property
    def result(self) -> torch.Tensor:
        """The tensor that the result is written to."""
        return self.tensor if self.into is None else self.into


@dataclass(frozen=True)
class Change:
    """An affine change of tensors: tensor ← decay · tensor + Σ_k c_k z(s_k)[index] for each.

    Attributes:
        places: the tensors, which share no memory.
        terms: (seed, coefficient) pairs.
        decay: the factor of the tensors themselves.
    """

    places: Sequence[Place] = field(repr=False)
    terms: Terms
    decay: float = 1.0

    @classmethod
    def of(
        cls,
        tensor: torch.Tensor,
        index: int,
        terms: Terms,
        decay: float = 1.0,
        into: torch.Tensor | None = None,
    ) -> Change:
        """The change of a single tensor."""
        return cls([Place(tensor, index, into)], terms, decay)

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self.decay != 1.0 or any(c for _, c in self.terms)


@dataclass(frozen=True)
class Displacement:
    """A vector over θ in seed space that may differ between parameter groups (own lr, own eps)."""

    groups: tuple[Terms, ...]

    def terms(self, slot: Slot) -> Terms:
        """The terms that apply to one tensor."""
        return self.groups[slot.group]

    def __bool__(self) -> bool:
        return any(self.groups)


class Direction(Protocol):
    """The distribution of z. Stateless: z follows from (seed, tensor index, offset).

    Every family is scaled so that E[z zᵀ] = I, hence E‖z‖² = d.
    """

    name: str

    def bind(self, slots: Sequence[Slot]) -> None:
        """Sets the tensors that θ consists of (a family may normalize over all of them)."""

    def add_(self, *changes: Change, stochastic_rounding: bool = False) -> None:
        """Applies the changes, each with one read and one write, in place or to ``into``.

        Sums are accumulated in fp32 (fp64 for fp64) and rounded once: to nearest, or with
        ``stochastic_rounding`` in half precision at random so that the mean is exact.
        """

    def rows(
        self, matrix: torch.Tensor, ids: torch.Tensor, index: int, terms: Terms
    ) -> torch.Tensor:
        """Rows ``ids`` of a matrix after :meth:`add_`, for a lookup."""


class Engine(Protocol):
    """How a probe is evaluated, and what state θ is in meanwhile.

    Constructed as ``Engine(slots, direction, model)``, with None if the model is not known.
    """

    name: str
    takes_population: bool
    """Whether its closures must take a :class:`zoopt.Population`."""

    def evaluate(self, displacements: Sequence[Displacement], values: Values) -> list[Any]:
        """The closure's values at θ + displacement, for several displacements together."""

    def revisit(self, displacement: Displacement) -> None:
        """Repeats what :meth:`evaluate` does to θ without evaluating, for a replay."""

    def commit(self, displacement: Displacement, decay: Mapping[int, float]) -> None:
        """θ ← decay · θ + displacement, where decay maps a slot's index to its factor."""

    def settle(self) -> None:
        """Finishes pending work on θ: removes any probe and applies any deferred commit."""

    @property
    def waiting(self) -> bool:
        """Whether a commit is deferred to the next probe."""

    def chain(self) -> AbstractContextManager[None]:
        """A context in which a commit may be deferred, to share the next probe's pass over θ."""


class UpdateRule(Protocol):
    """How ĝ moves θ. Dense state, if any, lives in ``state[slot.index]``."""

    name: str

    def apply(self, step: UpdateStep) -> None:
        """Applies one update."""


@dataclass(frozen=True)
class UpdateStep:
    """Everything an update rule needs for one step.

    Attributes:
        slots: θ.
        gradient: ĝ for each parameter group.
        lr: the learning rate of each group.
        decay: maps a slot's index to 1 − lr·weight_decay, or to 1 if it is excluded from decay.
        engine: moves θ.
        direction: generates z.
        state: returns the rule's dense state for a slot, which the optimizer keeps.
    """

    slots: Sequence[Slot]
    gradient: Displacement
    lr: tuple[float, ...]
    decay: Mapping[int, float]
    engine: Engine
    direction: Direction
    state: Callable[[Slot], dict[str, Any]]


class NonFiniteLossError(ArithmeticError):
    """The objective was NaN or infinite, or received NaN. θ is as it was before the step."""


@dataclass(frozen=True)
class StepRecord:
    """A record of a step, sufficient to repeat it without the objective.

    Attributes:
        step: number of updates before it.
        seeds: the seeds of the step's directions.
        losses: the values of its probes, signed for minimization, in order.
        lr: learning rate of each parameter group.
        eps: perturbation scale of each parameter group.
        weight_decay: weight decay of each parameter group.
        chained: whether its first probe shared a pass over θ with the previous update, which
            rounds differently from restoring first.
        n: number of directions drawn; None in logs of format 1, where it is constant.
        clip: bound on the coefficients; None if they were not clipped.
        settled: whether θ was restored between the probes and the update, which rounds differently
            from both in one pass.
    """

    step: int
    seeds: tuple[int, ...]
    losses: tuple[float, ...]
    lr: tuple[float, ...]
    eps: tuple[float, ...]
    weight_decay: tuple[float, ...]
    chained: bool
    n: int | None = None
    clip: float | None = None
    settled: bool = False
