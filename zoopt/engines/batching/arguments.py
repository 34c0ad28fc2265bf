"""Arguments of operations: by name, and with the batch's rows as first dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from zoopt.probes.population import Population


def named(names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """A call's arguments for an operation's leading parameters; None for those not given."""
    bound = dict(zip(names, args, strict=False)) | kwargs
    return [bound.get(name) for name in names]


def with_rows(x: Tensor, population: Population) -> Tensor:
    """x with the batch's rows as first dimension; a first dimension of 1 is expanded."""
    if has_rows(x, population):
        return x
    if x.ndim > 1 and x.shape[0] == 1:
        return x.expand(population.rows, *x.shape[1:])
    raise NotImplementedError(
        f"engine='batched' expected {population.rows} rows, but an activation has shape "
        f"{tuple(x.shape)}. The batch must be the first dimension throughout (no packed tokens, "
        "no experts): use engine='overlay', which evaluates one probe at a time."
    )


def has_rows(x: Tensor, population: Population) -> bool:
    """Whether x has the batch first; in a matrix also rows and tokens in one dimension (OPT)."""
    rows = population.rows
    return x.shape[:1] == (rows,) or (x.ndim == 2 and rows > 0 and x.shape[0] % rows == 0)
