"""The batched engine: K probes in one forward, for low-rank directions.

With z = A Bᵀ the product x (W + c z)ᵀ is x Wᵀ + c (x B) Aᵀ: W is read once for all probes, and
two thin products give each probe its own part. A ``TorchFunctionMode`` intercepts each operation
that takes a parameter; :mod:`zoopt.engines.batching` computes it for all probes. θ is never
written.

The first dimension of every activation must be the batch. The engine checks this: the rows are
declared, other shapes are refused, and before its first population it evaluates the last probe
alone, and compares the results of every parameter's first operation; and it evaluates that probe
beside other probes, which must not change its value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from zoopt.directions import LowRank
from zoopt.engines.base import BaseEngine
from zoopt.engines.batching.operations import perturbed_operation
from zoopt.engines.batching.perturbations import Derived, OfParameter, Perturbation, ProbeTerms
from zoopt.engines.batching.sampling import Noise, shared_choice
from zoopt.engines.interception.mode import Interception, require_seen
from zoopt.interfaces import Direction, Displacement, Slot, Values
from zoopt.probes.cuda_graph import in_passing
from zoopt.probes.population import Population
from zoopt.support.memory import available_bytes, peak_bytes

_COMPARED = 256
_SAME = 1e-4
"""Relative difference up to which a probe's values in two populations of one size are the same."""
_SHARE = 0.5
"""Share of the memory that is free at the first step which activations may take."""


class Batched(BaseEngine):
    """Evaluates many probes in one forward, as many at once as fit into memory.

    Args:
        slots: θ.
        direction: a low-rank family.
        model: if given, searched for modules whose operations the engine cannot intercept.

    Raises:
        TypeError: the direction has no factors, or the model has such a module or a soft prompt.
    """

    name = "batched"
    intercepts = True
    takes_population = True

    def __init__(
        self,
        slots: Sequence[Slot],
        direction: Direction,
        model: torch.nn.Module | None = None,
    ) -> None:
        super().__init__(slots, direction, model)
        if not isinstance(direction, LowRank):
            raise TypeError(
                f"engine='batched' shares one product with the weights among all probes, which "
                f"needs a low-rank direction, and {direction.name!r} is not one: use "
                "direction='lowrank', or engine='overlay' or 'inplace' for this direction"
            )
        _refuse_soft_prompts(model)
        self.low_rank = direction
        self.by_id = {id(slot.tensor): slot for slot in self.slots if slot.tensor.numel()}
        self.most: int | None = None
        """Maximum number of probes evaluated at once; None until the first one was measured."""

    def evaluate(self, displacements: Sequence[Displacement], values: Values) -> list[Any]:
        """The values at all displacements, in as few forwards as memory allows."""
        alone = self._alone(displacements[-1], values) if self.most is None else None
        assert self.most is not None
        number = len(displacements)
        size = -(-number // -(-number // self.most))
        beside = None if alone is None else self._beside_others(displacements[:size], values)
        said: list[Any] = []
        for start in range(0, number, size):
            trace = None if alone is None else Trace()
            said += self._together(displacements[start : start + size], values, trace)
        if alone is not None and trace is not None:
            alone.compare(trace, self.slots)
        if beside is not None:
            _refuse_coupled(_number(said[size - 1]), beside)
        return said

    def _beside_others(self, displacements: Sequence[Displacement], values: Values) -> float | None:
        """The last probe's value beside the opposites of the others; None if it has none."""
        *others, last = displacements
        if not others:
            return None
        return _number(self._together([*map(_opposite, others), last], values, None)[-1])

    def _alone(self, displacement: Displacement, values: Values) -> Trace:
        """Evaluates a probe alone, and sets the number of probes that fit into memory."""
        trace, device = Trace(), self.slots[0].tensor.device
        budget = _SHARE * available_bytes(device)
        _, each = peak_bytes(lambda: self._together([displacement], values, trace), device)
        self.most = max(1, int(budget // max(each, 1)))
        return trace

    def _together(
        self, displacements: Sequence[Displacement], values: Values, trace: Trace | None
    ) -> list[Any]:
        population = Population(len(displacements))
        mode = _Populate(self, displacements, population, trace)
        with mode, in_passing("engine='batched' creates new factors for each population"):
            said = values(population)
        if not population.rows:
            raise RuntimeError(
                "the closure did not say which rows belong to which probe: pass the model "
                "population.expand(inputs) instead of inputs"
            )
        require_seen(self.by_id, mode.seen, self.name)
        return said


def _refuse_coupled(value: float | None, beside: float) -> None:
    """Raises if a probe's value changed with the other probes of its population.

    In populations of one size, rows that do not depend on each other are computed alike.
    """
    if value is not None and not math.isclose(value, beside, rel_tol=_SAME, abs_tol=_SAME**2):
        raise RuntimeError(
            f"a probe's value was {value:g}, and {beside:g} beside other probes: the objective "
            "mixes the rows of different probes, as in-batch negatives or statistics of the batch "
            "do. Compute them within population.per_probe(...), or use engine='overlay', which "
            "evaluates one probe at a time"
        )


def _number(value: Any) -> float | None:
    """A probe's value as a number; None for an output that is compared, or what is not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def _opposite(displacement: Displacement) -> Displacement:
    return Displacement(tuple(tuple((s, -a) for s, a in terms) for terms in displacement.groups))


class Trace:
    """The last probe's result of each parameter's first operation."""

    def __init__(self) -> None:
        self.kept: dict[int, Tensor] = {}

    def keep(self, key: int, out: Any, size: int) -> None:
        """Stores the start and end of the last probe's part of an output's first tensor."""
        out = next((leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)), None)
        if key not in self.kept and out is not None:
            mine = out.reshape(size, -1)[-1]
            self.kept[key] = torch.cat([mine[:_COMPARED], mine[-_COMPARED:]]).float()

    def compare(self, other: Trace, slots: Sequence[Slot]) -> None:
        """Raises if a probe's results in a population differ from those it got alone."""
        for slot in slots:
            mine, theirs = self.kept.get(id(slot.tensor)), other.kept.get(id(slot.tensor))
            if mine is None or theirs is None:
                continue
            allowed = 1e-3 if slot.tensor.element_size() >= 4 else 0.1
            same = mine.shape == theirs.shape and bool(
                (mine - theirs).abs().max() <= allowed * mine.abs().max()
            )
            if not same:
                raise RuntimeError(
                    f"the operation that takes {slot.name} gave a probe other values in a "
                    "population than alone, so the model mixes rows of its batch or its first "
                    "dimension is not the batch: use engine='overlay', which evaluates one probe "
                    "at a time"
                )


class _Populate(Interception):
    """Computes each operation with every probe's own parameters on its rows."""

    def __init__(
        self,
        engine: Batched,
        displacements: Sequence[Displacement],
        population: Population,
        trace: Trace | None,
    ) -> None:
        super().__init__()
        self._engine, self._population, self._trace = engine, population, trace
        groups = zip(*(displacement.groups for displacement in displacements), strict=True)
        self._probes = [
            ProbeTerms(terms, [s for s in engine.slots if s.group == group], engine.low_rank)
            for group, terms in enumerate(groups)
        ]
        self._made: dict[int, Perturbation] = {}
        self._kept: list[Tensor] = []
        self._noise = Noise()
        self.seen: set[int] = set()

    def operation(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation for all probes at once."""
        if func is Tensor.__iter__:
            return iter(self.operation(Tensor.unbind, args, kwargs))
        if func in (torch.multinomial, Tensor.multinomial):
            return shared_choice(self._population, self._noise, args, kwargs)
        made = {
            key: self._perturbation(key)
            for key in _identities(args, kwargs.values())
            if key in self._engine.by_id or key in self._made
        }
        if not made:
            return func(*args, **kwargs)
        out = perturbed_operation(func, args, kwargs, made, self._population)
        if isinstance(out, Derived):
            return self._as_it_is(func(*args, **kwargs), out)
        taken = {source for perturbation in made.values() for source in perturbation.sources}
        self.seen |= taken
        if self._trace is not None:
            for key in taken:
                self._trace.keep(key, out, self._population.size)
        return out

    def _perturbation(self, key: int) -> Perturbation:
        """A parameter's perturbation, created once for all operations that take it."""
        if key not in self._made:
            slot = self._engine.by_id[key]
            self._made[key] = OfParameter(slot, self._probes[slot.group])
        return self._made[key]

    def _as_it_is(self, result: Any, derived: Derived) -> Any:
        """Registers a result computed from parameters only, to be perturbed where it is used."""
        leaves = tree_leaves(result)
        if any(isinstance(leaf, bool | int | float) for leaf in leaves):
            names = [self._engine.by_id[key].name for key in derived.sources]
            raise NotImplementedError(
                f"a number was read from {names[0]} (as .item() does), which is tuned, so that it "
                "differs between the probes that engine='batched' evaluates together: use "
                "engine='overlay', which evaluates one probe at a time"
            )
        for leaf, each in zip(leaves, derived.parts(len(leaves)), strict=True):
            if isinstance(leaf, Tensor) and id(leaf) not in self._made:
                self._made[id(leaf)] = each
                self._kept.append(leaf)
        return result


def _refuse_soft_prompts(model: torch.nn.Module | None) -> None:
    """Refuses soft prompts: PEFT looks one up once and repeats it over the batch of all probes."""
    for name, config in getattr(model, "peft_config", {}).items():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning and kind != "PREFIX_TUNING":
            raise TypeError(
                f"adapter {name!r} ({kind}) repeats its prompt over the batch, so that "
                "engine='batched' cannot tell the probes apart: use engine='overlay' or 'inplace', "
                "or prefix tuning"
            )


def _identities(*containers: Iterable[Any]) -> Iterator[int]:
    """``id`` of every tensor in arguments; without pytree, as it is called for each operation."""
    for container in containers:
        for item in container:
            if isinstance(item, Tensor):
                yield id(item)
            elif isinstance(item, list | tuple):
                yield from _identities(item)
            elif isinstance(item, dict):
                yield from _identities(item.values())
