"""Selects, names and checks the tensors that θ consists of.

>>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
>>> [name for group in groups_of(model, params="0.*") for name, _ in group["params"]]
['0.weight', '0.bias']
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoopt.interfaces import Slot
from zoopt.parameters.masters import is_half, master_of
from zoopt.parameters.quantized import ALTERNATIVE, packing

Options = Mapping[str, float | bool]
"""A group's own ``lr``, ``eps``, ``weight_decay`` and ``decay_1d``."""

Select = str | Sequence[str] | Mapping[str, Options] | Callable[[str, Tensor], bool] | None
"""Which parameters: name patterns as in a shell (``"*.norm.weight"``), or a predicate.

Patterns may have options, ``{"*lora*": {"lr": 1e-4, "eps": 1e-2}, "*norm*": {}}``: each pattern
makes its own group, and a parameter belongs to the first pattern that it matches.
"""

_OPTIONS = ("lr", "eps", "weight_decay", "decay_1d")


def groups_of(source: Any, params: Select = None, start: int = 0) -> list[dict[str, Any]]:
    """Parameter groups, with ``params`` as (name, tensor) pairs, from the user's argument.

    Frozen parameters (``requires_grad=False``) are left out; tied ones appear once.

    Args:
        source: a module; an iterable of parameters or of (name, parameter) pairs; or an iterable of
            group dicts as ``torch.optim`` takes them.
        params: patterns or a predicate ``(name, parameter) -> bool`` that choose among them;
            patterns with options make groups of a module's parameters.
        start: number in the generated name of the first unnamed parameter.

    Raises:
        ValueError: nothing is left to tune, or a pattern chooses nothing; it lists existing names.
        TypeError: the source is none of these.
    """
    if isinstance(params, Mapping):
        source, params = _split(source, params), None
    if isinstance(source, torch.nn.Module):
        raw: list[dict[str, Any]] = [{"params": list(source.named_parameters())}]
    elif isinstance(source, Tensor):
        raise TypeError(
            "ZOOptimizer was given a tensor: pass the model, a list of parameters [tensor], "
            "(name, parameter) pairs, or parameter groups"
        )
    else:
        items = list(source)
        raw = (
            [dict(g) for g in items]
            if items and isinstance(items[0], Mapping)
            else [{"params": items}]
        )
    chosen, seen = _chooser(params), set[int]()
    memory: dict[int, str] = {}
    available: list[str] = []
    packed: list[str] = []
    groups = []
    for group in raw:
        named = _named(group["params"], start + len(available))
        available += [name for name, _ in named]
        kept = []
        for name, tensor in named:
            if packing(tensor) and chosen(name, tensor):
                packed.append(f"{name!r} is {packing(tensor)}")
            if tensor.requires_grad and id(tensor) not in seen and chosen(name, tensor):
                seen.add(id(tensor))
                kept.append((name, _checked(name, tensor)))
                other = memory.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
                if other != name:
                    raise ValueError(
                        f"parameters {other!r} and {name!r} are different objects that share "
                        "memory, which would be perturbed twice: tie them as one Parameter"
                    )
        groups.append({**group, "params": kept})
    tuned = [name for group in groups for name, _ in group["params"]]
    if not tuned:
        if packed:
            raise TypeError(
                f"no parameter to tune: {packed[0]}, but zoopt tunes plain floating-point "
                f"parameters only. {ALTERNATIVE}"
            )
        raise ValueError(
            f"no parameter to tune: params={params!r} chose none of the trainable ones among "
            f"{len(available)} ({_some(available) or 'none given'}). Frozen parameters have "
            "requires_grad=False; unfreeze them or choose others."
        )
    if isinstance(source, torch.nn.Module):  # tied parameters have several names
        every = source.named_parameters(remove_duplicate=False)
        tuned = [name for name, tensor in every if id(tensor) in seen]
    for pattern in _patterns(params):
        if not any(fnmatch.fnmatchcase(name, pattern) for name in tuned):
            raise ValueError(
                f"{pattern!r} in params chose no trainable parameter; there are "
                f"{len(available)} parameters ({_some(available)})"
            )
    return groups


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def slots_of(
    param_groups: Sequence[Mapping[str, Any]], before: Sequence[Slot] = ()
) -> tuple[Slot, ...]:
    """The slots of θ, in the order of the groups, on which z depends.

    Args:
        param_groups: as in ``torch.optim``.
        before: previous slots, whose masters are kept if they are still valid.
    """
    slots: list[Slot] = []
    masters = {
        id(slot.tensor): slot.master
        for slot in before
        if slot.master is not None
        and is_half([slot.tensor])
        and slot.master.device == slot.tensor.device
    }
    for number, group in enumerate(param_groups):
        names = group.get("param_names") or [None] * len(group["params"])
        for name, tensor in zip(names, group["params"], strict=True):
            master = masters[id(tensor)] if id(tensor) in masters else master_of(tensor)
            slots.append(Slot(len(slots), name or f"param.{len(slots)}", tensor, number, master))
    return tuple(slots)


def is_expanded(tensor: Tensor) -> bool:
    """Whether elements share memory, so that torch refuses to write to the tensor.

    >>> is_expanded(torch.zeros(1).expand(3)), is_expanded(torch.zeros(3))
    (True, False)
    """
    return tensor.layout == torch.strided and any(
        stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


def _split(source: Any, options: Mapping[str, Options]) -> list[dict[str, Any]]:
    """A module's trainable parameters, one group per pattern."""
    if not isinstance(source, torch.nn.Module):
        raise TypeError(
            f"params={dict(options)!r} makes groups by name, which needs a module, not "
            f"{type(source).__name__}: pass group dicts with their own lr and eps instead"
        )
    groups: dict[str, dict[str, Any]] = {}
    for pattern, own in options.items():
        for name in own:
            if name not in _OPTIONS:
                raise ValueError(
                    f"params[{pattern!r}] has {name!r}; expected {', '.join(_OPTIONS)}"
                )
        groups[pattern] = {**own, "params": []}
    for name, tensor in source.named_parameters():
        matching = (pattern for pattern in options if fnmatch.fnmatchcase(name, pattern))
        chosen = next(matching, None) if tensor.requires_grad else None
        if chosen is not None:
            groups[chosen]["params"].append((name, tensor))
    for pattern, group in groups.items():
        if not group["params"]:
            raise ValueError(
                f"params[{pattern!r}] chose no trainable parameter that an earlier pattern had not"
            )
    return list(groups.values())


def _chooser(params: Select) -> Callable[[str, Tensor], bool]:
    if params is None:
        return lambda name, tensor: True
    if callable(params):
        return params
    patterns = _patterns(params)
    return lambda name, tensor: any(fnmatch.fnmatchcase(name, p) for p in patterns)


def _patterns(params: Select) -> list[str]:
    if params is None or callable(params):
        return []
    return [params] if isinstance(params, str) else list(params)


def _named(params: Any, start: int) -> list[tuple[str, Tensor]]:
    items: Iterable[Any] = [params] if isinstance(params, Tensor) else params
    named = []
    for number, item in enumerate(items, start):
        name, tensor = item if isinstance(item, tuple) else (f"param.{number}", item)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"expected parameters, (name, parameter) pairs or group dicts, got "
                f"{type(tensor).__name__}; pass the model itself or model.named_parameters()"
            )
        named.append((name, tensor))
    return named


def _checked(name: str, tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        raise TypeError(
            f"parameter {name!r} is {tensor.dtype}, but zoopt tunes real numbers: make two real "
            "parameters of it, and torch.complex(real, imaginary) where it is used"
        )
    packed = packing(tensor)
    if packed:
        raise TypeError(
            f"parameter {name!r} is {packed}, but zoopt tunes plain floating-point parameters "
            f"only. {ALTERNATIVE}"
        )
    if tensor.is_meta:
        raise ValueError(f"parameter {name!r} is on the meta device: load its weights first")
    if is_expanded(tensor):
        raise ValueError(
            f"parameter {name!r} is an expanded view whose elements share memory: "
            "clone() it before tuning"
        )
    return tensor
