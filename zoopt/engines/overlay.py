"""The overlay engine: θ is never written while probing.

A ``TorchFunctionMode`` sees every operation that takes a parameter and hands it θ + displacement,
made in scratch memory for that operation (for a lookup, only the rows looked up). An interrupted
run cannot leave a perturbed model, and half-precision weights do not drift.

The result equals explicit perturbation on the same dispatch path. What the mode cannot see would be
silently unperturbed, so it is refused: scripted and compiled modules when the engine is made, and
any parameter that no operation took during a probe when the probe ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from zoopt.engines.base import OneByOne
from zoopt.engines.interception import Interception, require_seen
from zoopt.interfaces import Change, Direction, Displacement, Losses, Slot


class Overlay(OneByOne):
    """Evaluates probes on scratch copies of single parameters. Restores nothing: nothing changes.

    Args:
        slots: θ.
        direction: the family of z.
        model: where given, searched for modules that the engine cannot see into.
    """

    name = "overlay"
    intercepts = True

    def __init__(
        self, slots: Sequence[Slot], direction: Direction, model: torch.nn.Module | None = None
    ) -> None:
        super().__init__(slots, direction, model)
        self._by_id = {id(slot.tensor): slot for slot in self.slots if slot.tensor.numel()}

    def probe(self, displacement: Displacement, loss: Losses) -> float:
        """The loss as if θ were θ + displacement.

        Raises:
            UnseenParameterError: a parameter of θ took part in no operation.
        """
        mode = _Perturb(self._by_id, self.direction, displacement)
        with mode:
            value = loss()
        require_seen(self._by_id, mode.seen, self.name)
        return value


class _Perturb(Interception):
    """Replaces parameters among an operation's arguments by their perturbed values."""

    def __init__(
        self, slots: Mapping[int, Slot], direction: Direction, displacement: Displacement
    ) -> None:
        super().__init__()
        self._slots, self._direction, self._displacement = slots, direction, displacement
        self.seen: set[int] = set()

    def operation(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation on perturbed parameters."""
        lookup = self._lookup(func, args, kwargs)
        if lookup is not None:
            return lookup
        args, kwargs = tree_map_only(Tensor, self._perturbed, (args, kwargs))
        return func(*args, **kwargs)

    def _perturbed(self, tensor: Tensor) -> Tensor:
        slot = self._slots.get(id(tensor))
        if slot is None:
            return tensor
        self.seen.add(id(tensor))
        scratch = tensor.detach().clone()
        self._direction.add_(Change(scratch, slot.index, self._displacement.terms(slot)))
        # Some kernels choose their path by it (matmul folds), even where autograd is off.
        return scratch.requires_grad_(tensor.requires_grad)

    def _lookup(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """F.embedding of a parameter, making only the rows that are looked up."""
        if func is not torch.nn.functional.embedding or kwargs.get("max_norm") is not None:
            return None
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        ids = args[0] if args else kwargs.get("input")
        slot = self._slots.get(id(weight))
        if slot is None or not isinstance(ids, Tensor) or not slot.tensor.is_contiguous():
            return None
        self.seen.add(id(weight))
        return self._direction.rows(slot.tensor, ids, slot.index, self._displacement.terms(slot))
