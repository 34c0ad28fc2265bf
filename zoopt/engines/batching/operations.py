"""Rules for operations that take perturbed parameters, for K probes at once.

Each rule gets the operation's arguments, among them the activation x with its rows in probe-major
order, and the parameters' perturbations. An operation without a rule is computed for one probe
after another, with explicitly perturbed parameters: exact, but slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from zoopt.directions.kernel.rounding import HALF
from zoopt.engines.batching.arguments import has_rows, named, with_rows
from zoopt.engines.batching.perturbations import Derived, Factors, Made, Perturbation
from zoopt.engines.batching.probe_by_probe import probe_by_probe
from zoopt.probes.population import Population

_ROWS = 8
"""Rows per probe from which thin products are computed probe by probe, ..."""
_SPARED = 32
"""... if each probe has at most this fraction (1/32) of all columns of the factors."""


def perturbed_operation(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    made: Made,
    population: Population,
) -> Any:
    """The operation with every probe's own parameters; :class:`Derived` if it takes no activation.

    Args:
        func: the operation.
        args: its positional arguments, including parameters.
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
    return probe_by_probe(func, args, kwargs, made, population)


# ------------------------------------------------------------------------------------------- rules


def _linear(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    x, weight, bias = named(("input", "weight", "bias"), args, kwargs)
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

    The thin products are computed first and the large one is accumulated onto them, which saves a
    pass over the output.
    """
    x = with_rows(x, population)
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
        out.view(population.size, -1, out.shape[-1]).add_(tuned_bias.stacked().unsqueeze(1))
    return out.view(*x.shape[:-1], matrix.shape[1])


def _embedding(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    names = ("input", "weight", "padding_idx", "max_norm")
    ids, weight, _, max_norm = named(names, args, kwargs)
    factors = made[id(weight)].factors() if id(weight) in made else None
    if max_norm is not None or factors is None:
        return NotImplemented
    ids = with_rows(ids, population)
    thin = _weighted(F.embedding(ids.flatten(), factors.left), factors.weights.coefficients)
    rows = F.embedding(ids.flatten(), weight.detach())
    return rows.addmm_(thin, factors.right.mT).view(*ids.shape, -1)


def _normalization(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    """Normalizes without weight and bias, then applies every probe's own, and rounds once."""
    names = _NORMALIZATIONS[func]
    bound = dict(zip(names, args, strict=False)) | kwargs
    weight, bias = bound.pop("weight", None), bound.pop("bias", None)
    x = with_rows(bound["input"], population)
    rounded = x.dtype in HALF and not torch.is_autocast_enabled(x.device.type)
    out = func(**bound | {"input": x.float() if rounded else x})
    for tensor, apply in ((weight, torch.mul), (bias, torch.add)):
        if tensor is None:
            continue
        if "normalized_shape" in names:
            per_row = tensor
        else:  # one weight per channel, which is dimension 1
            per_row = tensor.view(-1, *(1,) * (out.ndim - 2))
        if id(tensor) in made:
            ones = (1,) * (out.ndim - per_row.ndim)
            per_row = made[id(tensor)].stacked().view(population.size, *ones, *per_row.shape)
        grouped = apply(out.unflatten(0, (population.size, -1)), per_row)
        out = grouped.flatten(0, 1).to(torch.result_type(out, tensor))
    return out.to(x.dtype) if rounded else out


def _elementwise(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Made, population: Population
) -> Any:
    others = [a for a in args if isinstance(a, Tensor) and id(a) not in made]
    if len(others) != 1 or not has_rows(others[0], population):
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
    """A parameter with a batch dimension of 1, such as a class token, expanded to the batch."""
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


def _thin(flat: Tensor, factors: Factors, bias: Tensor | None) -> Tensor:
    """x · right · c · leftᵀ + bias of rows x with each probe's c, shape (rows, m).

    Multiplies all rows with all columns of the factors, most of which have a coefficient of 0; or,
    if that takes longer, each probe's rows with the probe's own columns.
    """
    left, right, (coefficients, columns, own) = factors
    probes, each = columns.shape
    if flat.element_size() < 4 or len(flat) < _ROWS * probes or each * _SPARED > left.shape[1]:
        projected = _weighted(flat @ right, coefficients)
        return projected @ left.mT if bias is None else torch.addmm(bias, projected, left.mT)
    inner, outer = (
        side.mT.index_select(0, columns.flatten()).view(probes, each, -1) for side in (right, left)
    )
    projected = torch.bmm(flat.view(probes, -1, flat.shape[1]), inner.mT) * own.unsqueeze(1)
    made = torch.bmm(projected, outer) if bias is None else torch.baddbmm(bias, projected, outer)
    return made.flatten(0, 1)


def _weighted(thin: Tensor, coefficients: Tensor) -> Tensor:
    """Rows of shape (q,), times their probe's coefficients, which have shape (K, q)."""
    grouped = thin.view(len(coefficients), -1, thin.shape[-1])
    return (grouped * coefficients.unsqueeze(1)).view_as(thin)


def _per_row(perturbation: Perturbation, x: Tensor) -> Tensor:
    """A perturbed parameter for each row of an activation, to be combined elementwise."""
    stacked = perturbation.stacked()
    if stacked.ndim - 1 == x.ndim:  # the parameter itself has a batch dimension of 1
        stacked = stacked.flatten(0, 1)
    ones = (1,) * (x.ndim - stacked.ndim)
    spread = stacked.reshape(len(stacked), *ones, *stacked.shape[1:])
    each = x.shape[0] // len(stacked)
    return spread if each == 1 else spread.repeat_interleave(each, 0)
