"""The overlay engine: θ is never written while probing.

Operations that take a parameter get θ + displacement (:mod:`zoopt.engines.interception`), computed
in scratch memory for that operation (for a lookup, only the rows looked up; vectors, which are many
and small, are computed together for a probe). An interrupted run cannot leave a perturbed model,
and half-precision weights do not drift.

On a GPU, launching the kernel for a small matrix takes longer than running it. So there a matrix is
computed together with those that followed it so far, in as much memory as the largest one takes.

The result equals explicit perturbation on the same dispatch path. Operations that cannot be
intercepted would silently be unperturbed, so these are refused: scripted and compiled modules when
the engine is created, and at the end of a probe any parameter that no operation took.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from zoopt.engines.base import OneByOne
from zoopt.engines.interception.mode import address, refuse_view, require_seen, transforming
from zoopt.engines.interception.standins import PLAIN, StandIns
from zoopt.engines.interception.substitution import Watching
from zoopt.interfaces import Change, Direction, Displacement, Place, Slot, Value
from zoopt.parameters.masters import vectors_alike
from zoopt.probes.cuda_graph import in_passing

_OFTEN = 32
"""Perturbations of a parameter per probe from which another engine is cheaper."""
_ALIGNED = 256
"""Elements: tensors that are computed together begin at multiples of this."""
_DEVICES = ("cuda",)
"""Device types on which matrices are computed together."""
_TOGETHER = 1 << 26
"""Bytes that matrices computed together may take, even if the largest takes less."""

_MADE_ANEW = (
    "engine='overlay' creates new tensors for each probe. Use engine='copy', or in fp32 'inplace'"
)

log = logging.getLogger("zoopt")


class Overlay(OneByOne):
    """Evaluates probes on scratch copies of single parameters. θ does not change.

    Args:
        slots: θ.
        direction: the family of z.
        model: if given, searched for modules whose operations the engine cannot intercept.
    """

    name = "overlay"
    intercepts = True

    def __init__(
        self, slots: Sequence[Slot], direction: Direction, model: torch.nn.Module | None = None
    ) -> None:
        super().__init__(slots, direction, model)
        self._by_id = {id(slot.tensor): slot for slot in self.slots if slot.tensor.numel()}
        self.remade = sum(slot.tensor.numel() for slot in self._by_id.values())
        self._vectors = [
            (alike, _rooms([slot.exact for slot in alike]))
            for alike in vectors_alike(self._by_id.values())
        ]
        self._stand_ins = StandIns((slot.tensor for slot in self._by_id.values()), model)
        self._order = _Order()
        self._warned = False

    def probe(self, displacement: Displacement, value: Value) -> Any:
        """The value as if θ were θ + displacement.

        Raises:
            UnseenParameterError: a parameter of θ took part in no operation.
        """
        self._order.begin()
        mode = _Perturb(self._by_id, self._vectors, self._order, self.direction, displacement)
        with in_passing(_MADE_ANEW), self._stand_ins.there(mode):
            said = value()
        require_seen(self._by_id, mode.seen, self.name)
        self._warn_of_repetition(mode.seen)
        return said

    def _warn_of_repetition(self, seen: Counter[int]) -> None:
        often = [key for key, times in seen.items() if times >= _OFTEN]
        matrix = next((self._by_id[k] for k in often if self._by_id[k].tensor.ndim > 1), None)
        if matrix is not None and not self._warned:
            self._warned = True
            log.warning(
                "engine='overlay' perturbed %s %d times in one probe, once per decoded token or "
                "call of its layer. engine='copy' perturbs it once, but takes twice the memory",
                matrix.name,
                seen[id(matrix.tensor)],
            )


class _Order:
    """Predicts which matrix is used after which, if the order was always the same so far."""

    def __init__(self) -> None:
        self._next: dict[int, int | None] = {}
        self._last: int | None = None
        self.largest = _TOGETHER
        """Bytes of the largest matrix, at least ``_TOGETHER``."""

    def begin(self) -> None:
        """Starts a new probe."""
        self._last = None

    def asked_for(self, key: int, matrix: Tensor) -> None:
        """Records the use of a matrix."""
        if self._last is not None:
            self._next[self._last] = key if self._next.setdefault(self._last, key) == key else None
        self._last = key
        self.largest = max(self.largest, matrix.nbytes)

    def after(self, key: int) -> Iterator[int]:
        """The matrices expected after a given one, each once."""
        passed = {key}
        following = self._next.get(key)
        while following is not None and following not in passed:
            yield following
            passed.add(following)
            following = self._next.get(following)


class _Perturb(Watching):
    """Replaces parameters among an operation's arguments by their perturbed values.

    Vectors are computed together, matrices when an operation takes one.
    """

    def __init__(
        self,
        slots: Mapping[int, Slot],
        vectors: Sequence[tuple[Sequence[Slot], Sequence[Tensor]]],
        order: _Order,
        direction: Direction,
        displacement: Displacement,
    ) -> None:
        super().__init__(slots)
        self._slots, self._order = slots, order
        self._direction, self._displacement = direction, displacement
        self._vectors: dict[int, Tensor] = {}
        self._matrices: dict[int, Tensor] = {}
        for alike, rooms in vectors:
            self._vectors |= self._displaced(alike, rooms)
        self.seen: Counter[int] = Counter()
        """Number of operations that took a parameter, by its ``id``."""

    @cached_property
    def _at(self) -> dict[int, Slot]:
        """θ's tensors by their addresses."""
        return {slot.tensor.data_ptr(): slot for slot in self._slots.values()}

    def operation(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation on its replaced arguments; refuses views created before the probe."""
        for leaf in (*args, *kwargs.values()):
            if isinstance(leaf, Tensor) and type(leaf) in PLAIN and id(leaf) not in self._slots:
                slot = self._slots.get(id(leaf._base)) or self._at.get(address(leaf))
                if slot is not None:
                    refuse_view(slot.name, Overlay.name)
        return super().operation(func, args, kwargs)

    def _displaced(self, slots: Sequence[Slot], rooms: Sequence[Tensor]) -> dict[int, Tensor]:
        """The perturbed values of parameters, by their ``id``, written to the given tensors."""
        pairs = list(zip(slots, rooms, strict=True))
        changes: dict[int, list[Place]] = {}
        for slot, room in pairs:
            changes.setdefault(slot.group, []).append(Place(slot.exact, slot.index, room))
        groups = self._displacement.groups
        self._direction.add_(*(Change(places, groups[g]) for g, places in changes.items()))
        return {id(slot.tensor): room for slot, room in pairs}

    def replaced(self, tensor: Tensor) -> Tensor:
        """A parameter's perturbed values."""
        self.seen[id(tensor)] += 1
        made = self._vectors.get(id(tensor))
        return self._matrix(self._slots[id(tensor)]) if made is None else made

    def _matrix(self, slot: Slot) -> Tensor:
        """A matrix's perturbed values, for this operation only."""
        key = id(slot.tensor)
        self._order.asked_for(key, slot.tensor)
        if key not in self._matrices:
            self._matrices = {}
            together = list(self._together(slot))
            self._matrices = self._displaced(together, _rooms([each.tensor for each in together]))
        return self._matrices.pop(key)

    def _together(self, slot: Slot) -> Iterator[Slot]:
        """A matrix, and the following ones that are computed together with it."""
        yield slot
        kind, used = _kind(slot.tensor), slot.tensor.nbytes
        if slot.tensor.device.type not in _DEVICES:
            return
        for key in self._order.after(id(slot.tensor)):
            following = self._slots[key]
            used += following.tensor.nbytes
            if used > self._order.largest or _kind(following.tensor) != kind:
                return
            yield following

    def looked_up(self, matrix: Tensor, ids: Tensor) -> Tensor:
        """Rows of a matrix's perturbed values, without computing the others."""
        self.seen[id(matrix)] += 1
        slot = self._slots[id(matrix)]
        return self._direction.rows(slot.tensor, ids, slot.index, self._displacement.terms(slot))


def _kind(matrix: Tensor) -> tuple[torch.dtype, torch.device, bool]:
    return matrix.dtype, matrix.device, matrix.is_contiguous()


def _rooms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Uninitialized tensors like the given ones, several of them in one piece of memory.

    Some operations choose their path (matmul folding) by whether a tensor requires a gradient, even
    if autograd is off, and only if it is not a view. So these have the same ``requires_grad`` and
    are not views. (Within torch.vmap ``requires_grad`` cannot be set.)
    """
    first = tensors[0]
    if len(tensors) == 1 or not all(tensor.is_contiguous() for tensor in tensors):
        rooms = [torch.empty_like(tensor) for tensor in tensors]
    else:
        sizes = [-(-tensor.numel() // _ALIGNED) * _ALIGNED for tensor in tensors]
        memory = first.new_empty(sum(sizes)).untyped_storage()
        starts = accumulate(sizes, initial=0)
        rooms = [
            first.new_empty(0).set_(memory, start, tensor.shape, tensor.stride())
            for tensor, start in zip(tensors, starts, strict=False)
        ]
    for room, tensor in zip(rooms, tensors, strict=True):
        if tensor.requires_grad and not transforming():
            room.requires_grad_()
    return rooms
