"""What perturbing a parameter means for an operation that serves K probes at once.

Each rule gets the operation's arguments by name, of which the first is the activation x with its
rows in probe-major order, and the parameters' perturbations. An operation without a rule is done
for one probe after the other, with the perturbed parameter made explicitly: exact, and slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from zoopt.directions.kernel.rounding import HALF
from zoopt.engines.batching.perturbations import Derived, Factors, Made, Perturbation
from zoopt.engines.interception.substitution import substituted
from zoopt.probes.population import Population

_ROWS = 8
"""Rows a probe from which on products probe by probe are taken."""
_SPARED = 4
"""By how much there must be fewer columns a probe than in all, for the same."""


def perturbed_operation(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    made: Made,
    population: Population,
) -> Any:
    """The operation with every probe's own parameters; for parameters alone, what they become.

    Args:
        func: what is called.
        args: its positional arguments, parameters among them.
        kwargs: its keyword arguments.
        made: the perturbations of the parameters among the arguments, by ``id``.
        population: which rows belong to which probe.
    """
    rule = _RULES.get(func)
    if rule is not None:
        out = rule(func, args, kwargs, made, population)
        if out is not NotImplemented:
            return out
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if all(id(t) in made or isinstance(t, torch.nn.Parameter) or t.ndim == 0 for t in tensors):
        return Derived(func, (args, kwargs), made)
    return _probe_by_probe(func, args, kwargs, made, population)


class Noise:
    """Noise that all probes of a population share, from one draw of torch's global generator."""

    def __init__(self) -> None:
        self._generator: torch.Generator | None = None

    def exponential(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Independent Exp(1) numbers, other ones at each call."""
        if self._generator is None:
            seed = int(torch.randint(1 << 62, ()))
            self._generator = torch.Generator(device).manual_seed(seed)
        return torch.empty(*shape, device=device).exponential_(generator=self._generator)


def shared_choice(
    population: Population, noise: Noise, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """torch.multinomial with the same noise for every probe: the argmax of p / Exp(1).

    All rows that stand for one example draw alike at each position, also where the texts of a pair
    end at different lengths.
    """
    weights, samples = _named(("input", "num_samples"), args, kwargs)
    if samples != 1 or weights.ndim != 2 or weights.shape[0] != population.rows:
        raise NotImplementedError(
            f"engine='batched' draws one sample for each of {population.rows} rows, not "
            f"{samples} from weights of shape {tuple(weights.shape)}; use engine='overlay'"
        )
    shape = (population.rows // population.size, weights.shape[1])
    shared = noise.exponential(shape, weights.device).repeat(population.size, 1)
    chosen: Tensor = (weights.float() / shared).argmax(-1, keepdim=True)
    return chosen


# ------------------------------------------------------------------------------------------- rules


def _linear(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    x, weight, bias = _named(("input", "weight", "bias"), args, kwargs)
    factors = made[id(weight)].factors() if id(weight) in made else None
    if id(weight) in made and factors is None:
        return NotImplemented
    return _affine(x, weight.detach().mT, factors, bias, made.get(id(bias)), population)


def _addmm(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    """bias + x W, as in GPT-2."""
    bias, x, weight, *_ = args
    factors = made[id(weight)].factors() if id(weight) in made else None
    if kwargs or id(x) in made or (id(weight) in made and factors is None):
        return NotImplemented
    if factors is not None:
        factors = factors._replace(left=factors.right, right=factors.left)
    return _affine(x, weight.detach(), factors, bias, made.get(id(bias)), population)


def _affine(
    x: Tensor,
    matrix: Tensor,
    factors: Factors | None,
    bias: Tensor | None,
    tuned_bias: Perturbation | None,
    population: Population,
) -> Tensor:
    """x · (matrix + right · c · leftᵀ) + bias for each probe's c and bias.

    The thin products come first and the large one is accumulated onto them, which spares a pass
    over the output.
    """
    x = _with_rows(x, population)
    flat = x.reshape(-1, x.shape[-1])
    added = None if tuned_bias else bias
    if factors is not None:
        added = _thin(flat, factors, added)
    if added is None:
        out = flat @ matrix
    elif factors is None or torch.is_autocast_enabled(x.device.type):
        out = torch.addmm(added, flat, matrix)
    else:
        out = added.addmm_(flat, matrix)
    if tuned_bias is not None:
        grouped = out.view(population.size, -1, out.shape[-1])
        out = (grouped + tuned_bias.stacked().unsqueeze(1)).to(out.dtype)
    return out.view(*x.shape[:-1], matrix.shape[1])


def _embedding(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    names = ("input", "weight", "padding_idx", "max_norm")
    ids, weight, _, max_norm = _named(names, args, kwargs)
    factors = made[id(weight)].factors() if id(weight) in made else None
    if max_norm is not None or factors is None:
        return NotImplemented
    ids = _with_rows(ids, population)
    thin = _weighted(F.embedding(ids.flatten(), factors.left), factors.coefficients)
    rows = F.embedding(ids.flatten(), weight.detach())
    return rows.addmm_(thin, factors.right.mT).view(*ids.shape, -1)


def _normalization(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    """Normalize without weight and bias, then apply every probe's own, and round once."""
    names = _NORMALIZATIONS[func]
    bound = dict(zip(names, args, strict=False)) | kwargs
    weight, bias = bound.pop("weight", None), bound.pop("bias", None)
    x = _with_rows(bound["input"], population)
    rounded = x.dtype in HALF and not torch.is_autocast_enabled(x.device.type)
    out = func(**bound | {"input": x.float() if rounded else x})
    for tensor, apply in ((weight, torch.mul), (bias, torch.add)):
        if tensor is None:
            continue
        if "normalized_shape" in names:
            per_row = tensor
        else:  # one weight a channel, which is dimension 1
            per_row = tensor.view(-1, *(1,) * (out.ndim - 2))
        if id(tensor) in made:
            stacked = made[id(tensor)].stacked().view(population.size, *per_row.shape)
            per_row = _repeat(stacked, out)
        out = apply(out, per_row).to(torch.result_type(out, tensor))
    return out.to(x.dtype) if rounded else out


def _elementwise(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    others = [a for a in args if isinstance(a, Tensor) and id(a) not in made]
    if len(others) != 1 or not _has_rows(others[0], population):
        return NotImplemented
    x = others[0]
    tuned = [a for a in args if id(a) in made]
    if any(a.ndim > x.ndim or (a.ndim == x.ndim and a.shape[0] != 1) for a in tuned):
        return NotImplemented
    given = (_per_row(made[id(a)], x) if id(a) in made else a for a in args)
    return func(*given, **kwargs).to(torch.result_type(*args[:2]))


def _expand(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    """A parameter with a batch dimension of 1, such as a class token, made as long as the batch."""
    tensor, *sizes = args
    sizes = list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
    if kwargs or tensor.shape[:1] != (1,) or len(sizes) != tensor.ndim:
        return NotImplemented
    if sizes[0] != population.rows:
        return NotImplemented
    stacked = made[id(tensor)].stacked().flatten(0, 1).to(tensor.dtype)
    stacked = stacked.repeat_interleave(population.rows // population.size, 0)
    return func(stacked, 1 if func is Tensor.repeat else population.rows, *sizes[1:])


_NORMALIZATIONS: dict[Callable[..., Any], tuple[str, ...]] = {
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
}
_RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
"""Whose states have the batch as their second dimension."""
_ELEMENTWISE = tuple(
    operation
    for name in ("add", "sub", "mul", "div")
    for operation in (
        getattr(torch, name),
        getattr(Tensor, name),
        getattr(Tensor, f"__{'truediv' if name == 'div' else name}__"),
        getattr(Tensor, f"__r{'truediv' if name == 'div' else name}__"),
    )
)
_RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    F.linear: _linear,
    F.embedding: _embedding,
    torch.addmm: _addmm,
    Tensor.expand: _expand,
    Tensor.repeat: _expand,
    **dict.fromkeys(_NORMALIZATIONS, _normalization),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
}


def _probe_by_probe(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    made: Made,
    population: Population,
) -> Any:
    given, size = (args, kwargs), population.size
    name = getattr(func, "__name__", func)
    if func in _RECURRENT:
        raise NotImplementedError(
            f"engine='batched' cannot take {name} apart, whose states do not have the batch as "
            "their first dimension: use engine='overlay', which evaluates one probe at a time"
        )

    def of_batch(leaf: Any) -> bool:
        is_activation = isinstance(leaf, Tensor) and not isinstance(leaf, torch.nn.Parameter)
        return is_activation and _has_rows(leaf, population)

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
        outs.append(substituted(func, leaves, moved, form))

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


def _named(names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    bound = dict(zip(names, args, strict=False)) | kwargs
    return [bound.get(name) for name in names]


def _has_rows(x: Tensor, population: Population) -> bool:
    """Whether the batch comes first; in a matrix also rows and tokens as one dimension (OPT)."""
    rows = population.rows
    return x.shape[:1] == (rows,) or (x.ndim == 2 and rows > 0 and x.shape[0] % rows == 0)


def _with_rows(x: Tensor, population: Population) -> Tensor:
    """x with the batch's rows first; a first dimension of 1 stands for all rows."""
    if _has_rows(x, population):
        return x
    if x.ndim > 1 and x.shape[0] == 1:
        return x.expand(population.rows, *x.shape[1:])
    raise NotImplementedError(
        f"engine='batched' was told of {population.rows} rows, but an activation has shape "
        f"{tuple(x.shape)}. The batch has to be the first dimension throughout (no packed tokens, "
        "no experts); use engine='overlay', which evaluates one probe at a time."
    )


def _thin(flat: Tensor, factors: Factors, bias: Tensor | None) -> Tensor:
    """x · right · c · leftᵀ + bias of rows x with each probe's c, shape (rows, m).

    The products of all rows with all columns of the factors, most of which have a coefficient of 0,
    or where that takes longer, of each probe's rows with the columns that it has.
    """
    left, right, coefficients, columns = factors
    probes, own = columns.shape
    if flat.element_size() < 4 or len(flat) < _ROWS * probes or own * _SPARED > left.shape[1]:
        projected = _weighted(flat @ right, coefficients)
        return projected @ left.mT if bias is None else torch.addmm(bias, projected, left.mT)
    scaled = right.mT[columns] * coefficients.gather(1, columns).unsqueeze(2)
    projected = torch.bmm(flat.view(probes, -1, flat.shape[1]), scaled.mT)
    outer = left.mT[columns]
    made = torch.bmm(projected, outer) if bias is None else torch.baddbmm(bias, projected, outer)
    return made.flatten(0, 1)


def _weighted(thin: Tensor, coefficients: Tensor) -> Tensor:
    """Rows of shape (q,), times the coefficients (K, q) of the probe that each belongs to."""
    grouped = thin.view(len(coefficients), -1, thin.shape[-1])
    return (grouped * coefficients.unsqueeze(1)).view_as(thin)


def _repeat(stacked: Tensor, x: Tensor) -> Tensor:
    """(K, *shape) as (rows, 1, …, *shape), to meet an activation of shape (rows, …, *shape)."""
    ones = (1,) * (x.ndim - stacked.ndim)
    spread = stacked.reshape(len(stacked), *ones, *stacked.shape[1:])
    return spread.repeat_interleave(x.shape[0] // len(stacked), 0)


def _per_row(perturbation: Perturbation, x: Tensor) -> Tensor:
    """A parameter as the rows of an activation have it, to be combined with it elementwise."""
    stacked = perturbation.stacked()
    if stacked.ndim - 1 == x.ndim:  # the parameter has a batch dimension of 1 of its own
        return stacked.flatten(0, 1).repeat_interleave(x.shape[0] // len(stacked), 0)
    return _repeat(stacked, x)
