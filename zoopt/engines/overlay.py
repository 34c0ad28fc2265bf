"""The overlay engine: θ is never written while probing.

A ``TorchFunctionMode`` sees every operation that takes a parameter and hands it θ + displacement,
made in scratch memory for that operation (for a lookup, only the rows looked up; vectors, of which
there are many and small ones, are made together for a probe). An interrupted run cannot leave a
perturbed model, and half-precision weights do not drift.

The result equals explicit perturbation on the same dispatch path. What the mode cannot see would be
silently unperturbed, so it is refused: scripted and compiled modules when the engine is made, and
any parameter that no operation took during a probe when the probe ends.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoopt.engines.base import OneByOne
from zoopt.engines.interception import require_seen
from zoopt.engines.substitution import Watching
from zoopt.interfaces import Change, Direction, Displacement, Losses, Place, Slot
from zoopt.room import Room

_OFTEN = 32
"""Times that a parameter is perturbed in one probe, from which on another engine is cheaper."""

log = logging.getLogger("zoopt")


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
        self.remade = sum(slot.tensor.numel() for slot in self._by_id.values())
        every = range(1 + max((slot.group for slot in self.slots), default=0))
        self._groups = [_Group(s for s in self._by_id.values() if s.group == g) for g in every]
        self._warned = False

    def probe(self, displacement: Displacement, loss: Losses) -> float:
        """The loss as if θ were θ + displacement.

        Raises:
            UnseenParameterError: a parameter of θ took part in no operation.
        """
        mode = _Perturb(self._by_id, self._groups, self.direction, displacement)
        with mode:
            value = loss()
        require_seen(self._by_id, mode.seen, self.name)
        self._warn_of_repetition(mode.seen)
        return value

    def _warn_of_repetition(self, seen: Counter[int]) -> None:
        often = [key for key, times in seen.items() if times >= _OFTEN]
        matrix = next((self._by_id[k] for k in often if self._by_id[k].tensor.ndim > 1), None)
        if matrix is not None and not self._warned:
            self._warned = True
            log.warning(
                "engine='overlay' perturbed %s %d times in one probe, at each token decoded or at "
                "each call of its layer; engine='copy' does so once, and takes twice the memory",
                matrix.name,
                seen[id(matrix.tensor)],
            )


class _Group:
    """A parameter group's vectors, those of one kind together, and its matrices."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self.vectors: dict[tuple[torch.dtype, torch.device], list[Slot]] = {}
        self.matrices: list[Place] = []
        for slot in slots:
            if slot.tensor.ndim < 2:
                kind = slot.exact.dtype, slot.exact.device
                self.vectors.setdefault(kind, []).append(slot)
            else:
                self.matrices.append(Place(slot.tensor, slot.index))


class _Perturb(Watching):
    """Replaces parameters among an operation's arguments by their perturbed values.

    Vectors are made together, matrices when an operation asks for one.
    """

    def __init__(
        self,
        slots: Mapping[int, Slot],
        groups: Sequence[_Group],
        direction: Direction,
        displacement: Displacement,
    ) -> None:
        super().__init__(slots)
        self._slots, self._direction, self._displacement = slots, direction, displacement
        self._vectors: dict[int, Tensor] = {}
        self._make: list[Callable[[Place], None]] = []
        for group, terms in zip(groups, displacement.groups, strict=False):  # the last may be empty
            for alike in group.vectors.values():
                room = Room([slot.exact for slot in alike])
                pairs = list(zip(alike, room.parts, strict=True))
                places = [Place(slot.exact, slot.index, part) for slot, part in pairs]
                direction.add_(Change(places, terms))
                self._vectors |= {id(slot.tensor): part for slot, part in pairs}
            self._make.append(direction.one_by_one(Change(group.matrices, terms)))
        self.seen: Counter[int] = Counter()
        """How many operations took a parameter, by its ``id``."""

    def operation(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation on perturbed parameters."""
        lookup = self._lookup(func, args, kwargs)
        return super().operation(func, args, kwargs) if lookup is None else lookup

    def replaced(self, tensor: Tensor) -> Tensor:
        """A parameter's perturbed values, or the tensor."""
        slot = self._slots.get(id(tensor))
        if slot is None:
            return tensor
        self.seen[id(tensor)] += 1
        made = self._vectors.get(id(tensor))
        if made is None:
            made = torch.empty_like(slot.tensor)
            self._make[slot.group](Place(slot.tensor, slot.index, made))
        # Some kernels choose their path by it (matmul folds), even where autograd is off, and then
        # only where it is no view.
        return made.detach().requires_grad_(tensor.requires_grad)

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
        self.seen[id(weight)] += 1
        return self._direction.rows(slot.tensor, ids, slot.index, self._displacement.terms(slot))
