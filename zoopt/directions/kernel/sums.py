"""The sum decay · θ + Σ_k c_k z(s_k), as the kernels compute it."""

from __future__ import annotations

from dataclasses import dataclass

from zoopt.directions.kernel.generator import Unit
from zoopt.interfaces import Change, Terms


@dataclass(frozen=True)
class Sum:
    """decay · θ + Σ_k c_k z(s_k), accumulated in fp32 (fp64 for fp64) and rounded once.

    Attributes:
        unit: the family that z is drawn from.
        terms: (seed, coefficient) pairs without zeros.
        decay: the factor of θ.
        stochastic: whether the result is rounded up or down at random.
        rounding_seed: what the rounding noise is drawn from.
    """

    unit: Unit
    terms: Terms
    decay: float
    stochastic: bool
    rounding_seed: int

    @classmethod
    def of(cls, change: Change, unit: Unit, stochastic: bool) -> Sum:
        """The sum of a change.

        Its rounding is drawn from the first seed, even if that has a coefficient of 0: a constant
        seed would round the same weights the same way at every step.
        """
        terms = tuple((seed, c) for seed, c in change.terms if c != 0.0)
        seed = change.terms[0][0] if change.terms else 0
        return cls(unit, terms, change.decay, stochastic, seed)
