"""Operations that no rule knows, done for one probe after the other: exact, and slower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from zoopt.engines.batching.arguments import has_rows
from zoopt.engines.batching.perturbations import Made
from zoopt.engines.interception.fp32 import in_usual_dtype
from zoopt.probes.population import Population

_RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
"""Whose states have the batch as their second dimension."""


def probe_by_probe(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    made: Made,
    population: Population,
) -> Any:
    """The operation on each probe's rows and parameters alone, results put together.

    Arguments are those of :func:`~zoopt.engines.batching.operations.perturbed_operation`.

    Raises:
        NotImplementedError: no rows can be taken out of its arguments.
    """
    given, size = (args, kwargs), population.size
    name = getattr(func, "__name__", func)
    if func in _RECURRENT:
        raise NotImplementedError(
            f"engine='batched' cannot take {name} apart, whose states do not have the batch as "
            "their first dimension: use engine='overlay', which evaluates one probe at a time"
        )

    def of_batch(leaf: Any) -> bool:
        is_activation = isinstance(leaf, Tensor) and not isinstance(leaf, torch.nn.Parameter)
        return is_activation and has_rows(leaf, population)

    if not any(of_batch(leaf) for leaf in tree_leaves(given)):
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        raise NotImplementedError(
            f"engine='batched' cannot tell which rows of {name} belong to which probe: none of its "
            f"tensors, of shapes {shapes}, has the {population.rows or 'declared'} rows of the "
            "batch first. Expand all inputs of the model with population.expand, or use "
            "engine='overlay', which evaluates one probe at a time."
        )
    outs = []
    for k in range(size):

        def mine(leaf: Any, k: int = k) -> Any:
            return leaf.chunk(size)[k] if of_batch(leaf) and id(leaf) not in made else leaf

        leaves, form = tree_flatten(tree_map(mine, given))
        moved = [made[id(leaf)].explicit(k) if id(leaf) in made else leaf for leaf in leaves]
        outs.append(in_usual_dtype(func, leaves, moved, form))

    def joined(*parts: Any) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        if parts[0].ndim == 0 or parts[0].shape[0] % (population.rows // size):
            raise NotImplementedError(
                f"engine='batched' cannot tell which part of what {name} gave, of shape "
                f"{tuple(parts[0].shape)} for each probe, belongs to which row: the "
                f"{population.rows // size} rows of a probe are not its first dimension. Use "
                "engine='overlay', which evaluates one probe at a time."
            )
        return torch.cat(parts)

    return tree_map(joined, *outs)
