"""The base of the dense families, in which every element of θ has its own component of z."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from zoopt.directions.kernel import fused
from zoopt.directions.kernel.generator import Unit
from zoopt.interfaces import Change, Slot, Terms


class DenseDirection:
    """A direction whose components come directly from the kernel. Subclasses set the unit."""

    name: str
    unit: Unit

    def bind(self, slots: Sequence[Slot]) -> None:
        """Does nothing, because z of a tensor depends on its own shape alone."""

    def scaled(self, terms: Terms) -> Terms:
        """The coefficients of the kernel's z for these terms. Here they are the same."""
        return terms

    def add_(self, *changes: Change, stochastic_rounding: bool = False) -> None:
        """Each tensor ← decay · tensor + Σ_k c_k z(s_k)[index]; see :func:`fused.add_`."""
        fused.add_(
            [self._of_unit(change) for change in changes],
            self.unit,
            stochastic_rounding=stochastic_rounding,
        )

    def _of_unit(self, change: Change) -> Change:
        terms = self.scaled(change.terms)
        return change if terms is change.terms else replace(change, terms=terms)

    def rows(
        self, matrix: torch.Tensor, ids: torch.Tensor, index: int, terms: Terms
    ) -> torch.Tensor:
        """Rows ``ids`` of the matrix after :meth:`add_`, without writing to the matrix.

        Args:
            matrix: shape (rows, width), a parameter of θ.
            ids: integer tensor of any shape.
            index: the matrix's position in θ.
            terms: (seed, coefficient) pairs.

        Returns:
            shape ``(*ids.shape, width)``.
        """
        rows = torch.nn.functional.embedding(ids, matrix.detach())
        return fused.add_to_rows(rows, ids, matrix.numel(), index, self.scaled(terms), self.unit)
