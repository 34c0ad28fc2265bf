"""fp32 masters of half-precision vectors: norms' weights, biases, all of less than two dimensions.

Next to 1 the numbers of bf16 are 0.0078 apart. εz with ε = 0.001 then leaves 97.5 % of a norm's
weights where they are, and so does every update. So a vector in half precision has a master in
fp32, which is what is perturbed and updated; the parameter itself is the master rounded to nearest.
Vectors are few: the masters of a model of 135 million parameters take 140 KB.

A master is believed as far as it rounds to its parameter. Where it does not, somebody has written
to the parameter (loaded weights, say), and the parameter counts.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from zoopt.interfaces import Slot


def master_of(tensor: Tensor) -> Tensor | None:
    """A copy of a half-precision vector in fp32; None for other tensors, which are their own."""
    return tensor.detach().float() if tensor.ndim < 2 and is_half([tensor]) else None


def is_half(tensors: Iterable[Tensor]) -> bool:
    """Whether one of them is in half precision, or less."""
    return any(t.is_floating_point() and t.element_size() < 4 for t in tensors)


@torch.no_grad()
def publish(slots: Iterable[Slot]) -> None:
    """Rounds every master into its parameter."""
    for tensors, masters in _alike(slots):
        torch._foreach_copy_(tensors, masters)


@torch.no_grad()
def adopt(slots: Iterable[Slot]) -> None:
    """Takes over into the masters what somebody else has written to their parameters."""
    for tensors, masters in _alike(slots):
        theirs, mine = (torch.cat([t.reshape(-1) for t in each]) for each in (tensors, masters))
        right = torch.where(mine.to(theirs.dtype) == theirs, mine, theirs.float())
        parts = torch.split_with_sizes(right, [master.numel() for master in masters])
        torch._foreach_copy_(
            masters, [part.view_as(master) for part, master in zip(parts, masters, strict=True)]
        )


def _alike(slots: Iterable[Slot]) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
    """Vectors and their masters, those of one dtype on one device together: few launches then."""
    groups: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
    for slot in slots:
        if slot.master is not None:
            tensor = slot.tensor.detach()
            tensors, masters = groups.setdefault((tensor.dtype, tensor.device), ([], []))
            tensors.append(tensor)
            masters.append(slot.master)
    return groups.values()
