"""An optimizer's saved state: what must match when it is loaded, and which value applies if not.

>>> said({"eps": (0.01,), "n": "1"}, {"eps": (0.001,), "n": "4"}).split(". ")[1]
'n is 4, as given; the saved run had 1'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from zoopt import registry
from zoopt.directions.kernel.fused import KERNEL_VERSION
from zoopt.interfaces import Direction, Slot, UpdateRule
from zoopt.parameters import groups

_ELSEWHERE = ("eps", "direction", "engine")
"""Estimator options left out: kept in the groups, checked elsewhere, or without effect."""


def settings_of(estimator: Any, update: UpdateRule, maximize: bool) -> dict[str, str]:
    """An estimator's and an update rule's options, as plain text for a state dict."""
    options = registry.describe(estimator)
    options["estimator"] = options.pop("name")
    for name, value in registry.describe(update).items():
        options["update" if name == "name" else f"update's {name}"] = value
    options["maximize"] = maximize
    return {name: repr(value) for name, value in options.items() if name not in _ELSEWHERE}


def own_part(state_dict: Mapping[str, Any], direction: Direction) -> dict[str, Any]:
    """The ``"zoopt"`` part of a state dict.

    Raises:
        ValueError: it was saved by another optimizer, kernel version or direction family.
    """
    if "zoopt" not in state_dict:
        raise ValueError(
            f"this state dict has no 'zoopt' entry (it has {sorted(state_dict)}), so a ZOOptimizer "
            "did not save it: the state of another optimizer cannot be loaded"
        )
    own: dict[str, Any] = state_dict["zoopt"]
    for what, mine in (("kernel", KERNEL_VERSION), ("direction", direction.name)):
        if own[what] != mine:
            raise ValueError(
                f"the state was saved with {what} {own[what]!r}, but this optimizer has {mine!r}"
            )
    return own


def masters_of(slots: Sequence[Slot]) -> dict[str, Tensor]:
    """Copies of the fp32 masters, by their parameters' names."""
    return {slot.name: slot.master.clone() for slot in slots if slot.master is not None}


def restore(
    state_dict: Mapping[str, Any], slots: Sequence[Slot], state: Mapping[Tensor, dict[str, Any]]
) -> None:
    """Restores saved tensors, each in the dtype that it was saved in.

    Torch casts floating-point state to the parameter's dtype, but zoopt's state is always fp32.

    Args:
        state_dict: returned by :meth:`zoopt.ZOOptimizer.state_dict`.
        slots: θ.
        state: the optimizer's state as torch loaded it.
    """
    masters = state_dict["zoopt"]["masters"]
    for number, slot in enumerate(slots):
        for name, value in state_dict["state"].get(number, {}).items():
            if isinstance(value, Tensor):
                state[slot.tensor][name] = value.to(slot.tensor.device, copy=True)
        if slot.master is not None and slot.name in masters:
            slot.master.copy_(masters[slot.name])


def contradictions(
    state_dict: Mapping[str, Any], param_groups: groups.Groups, settings: Mapping[str, str]
) -> str:
    """A message listing the settings in which an optimizer and a state differ; empty if none.

    Args:
        state_dict: the state to be loaded. Those of earlier versions have no settings.
        param_groups: the optimizer's parameter groups before loading.
        settings: the optimizer's settings; see :func:`settings_of`.
    """
    saved = {"eps": groups.each(state_dict["param_groups"], "eps")}
    return said(
        saved | state_dict["zoopt"].get("settings", {}),
        {"eps": groups.each(param_groups, "eps"), **settings},
    )


def said(saved: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """States which of two values applies, for each setting that both have and that differs."""
    differing = [name for name in mine if name in saved and saved[name] != mine[name]]
    return ". ".join(
        f"eps is {_numbers(saved[name])}, the saved run's, not {_numbers(mine[name])}: to change "
        "it, set group['eps'] of optimizer.param_groups after loading (with ZOTrainer, in a "
        "callback's on_train_begin)"
        if name == "eps"
        else f"{name} is {mine[name]}, as given; the saved run had {saved[name]}"
        for name in differing
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in dict.fromkeys(values))
