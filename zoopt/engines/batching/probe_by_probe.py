"""Operations without a rule, computed for one probe after another: exact, but slower."""

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
"""Operations whose states have the batch as second dimension."""


def probe_by_probe(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    made: Made,
    population: Population,
) -> Any:
    """The operation on each probe's rows and parameters separately, results concatenated.

    Arguments are those of :func:`~zoopt.engines.batching.operations.perturbed_operation`.

    Raises:
        NotImplementedError: its arguments or results cannot be split by probe.
    """
    given, size = (args, kwargs), population.size
    name = getattr(func, "__name__", func)
    if func in _RECURRENT:
        raise NotImplementedError(
            f"engine='batched' cannot split {name} by probe, because the first dimension of its "
            "states is not the batch: use engine='overlay', which evaluates one probe at a time"
        )

    def of_batch(leaf: Any) -> bool:
        is_activation = isinstance(leaf, Tensor) and not isinstance(leaf, torch.nn.Parameter)
        return is_activation and has_rows(leaf, population)

    if not any(of_batch(leaf) for leaf in tree_leaves(given)):
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        raise NotImplementedError(
            f"engine='batched' cannot tell which rows of {name} belong to which probe: none of its "
            f"tensors, of shapes {shapes}, has the batch's {population.rows or 'declared'} rows as "
            "first dimension. Expand all inputs of the model with population.expand, or use "
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
                f"engine='batched' cannot tell which part of the result of {name}, of shape "
                f"{tuple(parts[0].shape)} for each probe, belongs to which row: its first "
                f"dimension is not the {population.rows // size} rows of a probe. Use "
                "engine='overlay', which evaluates one probe at a time."
            )
        return torch.cat(parts)

    return tree_map(joined, *outs)
