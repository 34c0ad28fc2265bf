"""How much of a perturbation, and of an update, survives rounding in each tensor of θ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoopt.directions import Gaussian
from zoopt.directions.kernel.rounding import accumulator
from zoopt.interfaces import Change, Slot, Terms
from zoopt.parameters.masters import is_half
from zoopt.parameters.selection import Select, groups_of

if TYPE_CHECKING:
    import pandas

_SAMPLED = 1 << 16
_SEED = 1
_COSINE, _SWALLOWED, _KEPT = 0.9, 0.5, 0.9
"""Thresholds for advice: cosine below, share swallowed above, share kept below."""


@dataclass(frozen=True)
class TensorPrecision:
    """How much of a perturbation and an update survives rounding in one tensor's dtype.

    Attributes:
        name: the parameter's name.
        dtype: its dtype, as ``"bfloat16"``.
        vector: whether it has fewer than two dimensions.
        elements: number of its elements; the shares are measured on up to 65,536 of them.
        unchanged: share of entries that θ + εz, rounded to nearest, leaves unchanged.
        cosine: cosine between the applied perturbation and εz; 0 if nothing changes.
        swallowed: share of entries that an update rounded to nearest would not change.
        kept: expected share of an update that is applied when rounded stochastically.
        advice: what to do, or ``"nothing"``.
    """

    name: str
    dtype: str
    vector: bool
    elements: int
    unchanged: float
    cosine: float
    swallowed: float
    kept: float
    advice: str


@dataclass(frozen=True)
class PrecisionReport:
    """The result of :func:`precision_report`. Its ``str`` is a table, one row per kind of tensor.

    Attributes:
        eps: the perturbation scale ε.
        update: lr · |c|, the factor of z in an update.
        tensors: one entry per tensor.
    """

    eps: float
    update: float
    tensors: tuple[TensorPrecision, ...] = field(repr=False)

    @property
    def frame(self) -> pandas.DataFrame:
        """The entries as a table, one row per tensor."""
        import pandas

        return pandas.DataFrame([asdict(tensor) for tensor in self.tensors])

    def __str__(self) -> str:
        columns = ("tensors", "dtype", "unchanged", "cosine", "swallowed", "kept", "what to do")
        rows = [columns, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns) - 1)]
        lines = [
            "  ".join([*(f"{word:<{w}}" for word, w in zip(row, widths, strict=False)), row[-1]])
            for row in rows
        ]
        return "\n".join([f"perturbed by {self.eps:g} z, updated by {self.update:g} z", *lines])

    def _rows(self) -> Iterator[tuple[str, ...]]:
        """Means over the tensors of one dtype and kind with the same advice."""
        alike: dict[tuple[str, bool, str], list[TensorPrecision]] = {}
        for tensor in self.tensors:
            alike.setdefault((tensor.dtype, tensor.vector, tensor.advice), []).append(tensor)
        for (dtype, vector, advice), members in alike.items():
            kind = "vectors" if vector else "matrices"
            yield (
                members[0].name if len(members) == 1 else f"{len(members)} {kind}",
                dtype,
                f"{_mean(members, 'unchanged'):.1%}",
                f"{_mean(members, 'cosine'):.3f}",
                f"{_mean(members, 'swallowed'):.1%}",
                f"{_mean(members, 'kept'):.1%}",
                advice,
            )


def precision_report(
    model: Any,
    eps: float = 1e-3,
    lr: float = 1e-6,
    params: Select = None,
    projected_gradient: float = 1.0,
) -> PrecisionReport:
    """Measures how much of a probe and of an update survives rounding, for each tuned tensor.

    A probe is θ + εz, an update θ − lr · c · z with the projected gradient c; z is Gaussian. Both
    are measured on up to 65,536 entries of each tensor, in the tensor's own dtype. The model is not
    modified.

    zoopt itself loses less than the table shows: it perturbs and updates half-precision vectors
    (norms, biases) in fp32, and rounds updates of half-precision matrices stochastically, which
    ``kept`` measures.

    Args:
        model: a module, or anything else that :class:`zoopt.ZOOptimizer` takes.
        eps: the perturbation scale ε.
        lr: the learning rate.
        params: which parameters, as for :class:`zoopt.ZOOptimizer`.
        projected_gradient: a typical |c|; compute it from a run's log (``losses`` and ``eps``).

    Raises:
        ValueError: eps, lr or projected_gradient is not positive, or there is nothing to tune.

    Example:
        >>> import torch, zoopt
        >>> norm = torch.nn.LayerNorm(1 << 16).to(torch.bfloat16)
        >>> report = zoopt.precision_report(norm, eps=1e-3, params="weight")
        >>> [round(float(x), 2) for x in report.frame.loc[0, ["unchanged", "cosine"]]]
        [0.97, 0.37]
    """
    given = {"eps": eps, "lr": lr, "projected_gradient": projected_gradient}
    for name, value in given.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value} must be a positive number")
    named = (pair for group in groups_of(model, params) for pair in group["params"])
    slots = [Slot(index, name, tensor) for index, (name, tensor) in enumerate(named)]
    update = lr * projected_gradient
    found = tuple(_measured(slot, eps, update) for slot in slots if slot.tensor.numel())
    return PrecisionReport(eps, update, found)


def _mean(tensors: list[TensorPrecision], name: str) -> float:
    total = sum(tensor.elements for tensor in tensors)
    return float(sum(getattr(tensor, name) * tensor.elements for tensor in tensors) / total)


@torch.no_grad()
def _measured(slot: Slot, eps: float, update: float) -> TensorPrecision:
    every = max(1, slot.tensor.numel() // _SAMPLED)
    theta = slot.tensor.detach().reshape(-1)[::every][:_SAMPLED].contiguous()
    exact = theta.to(accumulator(theta.dtype))
    z = _moved(torch.zeros_like(exact), slot, ((_SEED, 1.0),)).double()
    probed, updated = (_moved(theta, slot, ((_SEED, scale),)) for scale in (eps, update))
    applied = probed.double() - theta.double()
    norms = float(applied.norm() * z.norm())
    # The mean of stochastic rounding is the unrounded sum.
    arriving = _moved(exact, slot, ((_SEED, update),)).double() - exact.double()
    measured = {
        "unchanged": float((probed == theta).double().mean()),
        "cosine": float(applied @ z) / norms if norms else 0.0,
        "swallowed": float((updated == theta).double().mean()),
        "kept": float(arriving @ z / (update * (z @ z))),
    }
    return TensorPrecision(
        slot.name,
        str(theta.dtype).removeprefix("torch."),
        slot.tensor.ndim < 2,
        slot.tensor.numel(),
        **measured,
        advice=_advice(theta, slot.tensor.ndim < 2, **measured),
    )


def _moved(tensor: Tensor, slot: Slot, terms: Terms) -> Tensor:
    moved = tensor.clone()
    Gaussian().add_(Change.of(moved, slot.index, terms))
    return moved


def _advice(
    theta: Tensor, vector: bool, unchanged: float, cosine: float, swallowed: float, kept: float
) -> str:
    half = is_half([theta])
    if half and vector and (cosine < _COSINE or swallowed > _SWALLOWED):
        return "nothing: zoopt perturbs and updates it in fp32 (other tools: keep it in fp32)"
    advice = []
    if cosine < _COSINE:
        # Rounding to a grid as wide as ε leaves a cosine of about 0.96.
        apart = torch.finfo(theta.dtype).eps * 2.0 ** math.floor(math.log2(_large(theta)))
        advice.append(f"raise eps to {apart:.0e}{' or load it in fp32' if half else ''}")
    if kept < _KEPT:
        advice.append("raise lr: its updates are below the resolution of fp32")
    if half and swallowed > _SWALLOWED and not advice:
        advice.append("nothing: zoopt rounds updates stochastically (other tools lose them)")
    return "; ".join(advice) or "nothing"


def _large(theta: Tensor) -> float:
    """The 90 % quantile of |θ|, at least the smallest normal number."""
    return max(float(theta.abs().double().quantile(0.9)), torch.finfo(theta.dtype).tiny)
