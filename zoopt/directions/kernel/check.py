"""A compiled kernel is used once its results on a sample equal the reference's, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoopt.directions.kernel import compilation, eager, generator
from zoopt.directions.kernel.generator import BLOCK, Unit
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Place

Launch = Callable[[Sum, Sequence[Place], int], None]
"""Applies a sum to contiguous places of one dtype on one device; see :func:`eager.add`."""

_SIZES = [16 * BLOCK, 1, 513, 5000, 9000]
"""Of the sample's tensors: whole tiles, and runs that are short or odd."""


@dataclass(frozen=True)
class Variant:
    """What a kernel is compiled for, or distinguishes.

    Attributes:
        unit: the family that z is drawn from.
        dtype: of the elements.
        device: of the elements.
        stochastic: whether results are rounded stochastically.
        terms: number of terms.
    """

    unit: Unit
    dtype: torch.dtype
    device: torch.device
    stochastic: bool
    terms: int


@dataclass
class Checked:
    """The variants of a kernel that have passed their check.

    Attributes:
        kernel: its name.
        instead: what zoopt does without it, for the warning.
        broken: whether a variant has failed; the kernel is not used any more.
    """

    kernel: str
    instead: str
    broken: bool = False
    passed: set[Variant] = field(default_factory=set)

    def agrees(self, variant: Variant, launch: Launch) -> bool:
        """Whether a variant gives the reference's results; compared at the first call."""
        if variant not in self.passed and not self.broken:
            if compilation.passes(lambda: _compare(launch, variant), self.kernel, self.instead):
                self.passed.add(variant)
            else:
                self.broken = True
        return not self.broken


def require_same_bits(found: Tensor, expected: Tensor) -> None:
    """Raises RuntimeError unless a kernel's results equal the reference's in every bit."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[found.element_size()]
    if not torch.equal(found.view(bits), expected.view(bits)):
        raise RuntimeError("its results differ from those of eager execution")


def _compare(launch: Launch, variant: Variant) -> None:
    """Raises unless the results on a sample equal the reference's.

    Runs begin within a block or at an odd address, or cross a segment's end; sums overflow in half
    precision or are subnormal.
    """
    values = (
        torch.linspace(-12, 12, sum(_SIZES), dtype=torch.float32)
        .sinh()
        .to(variant.device, variant.dtype)
    )
    for first, scale in ((0, 1.0), (700, 1e-3), (generator.SEGMENT - 1300, 1e-6)):
        terms = tuple((seed + 1, scale / (seed + 1)) for seed in range(variant.terms))
        total = Sum(variant.unit, terms, 0.9, variant.stochastic, rounding_seed=1)
        for apart in (False, True):
            results = []
            for apply in (launch, eager.add):
                theta = values.clone()
                result = torch.zeros_like(theta) if apart else theta
                parts = zip(torch.split(theta, _SIZES), torch.split(result, _SIZES), strict=True)
                places = [
                    Place(part, index, into if apart else None)
                    for index, (part, into) in enumerate(parts)
                ]
                apply(total, places, first)
                results.append(result)
            require_same_bits(*results)
