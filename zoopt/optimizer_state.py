"""A saved optimizer and one that goes on from it: what must be alike, and what counts if not.

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
"""Options of an estimator that an optimizer has in its groups, checks, or does not depend on."""


def settings_of(estimator: Any, update: UpdateRule, maximize: bool) -> dict[str, str]:
    """An estimator's and an update rule's options, as text that any reader of a state takes."""
    options = registry.describe(estimator)
    options["estimator"] = options.pop("name")
    for name, value in registry.describe(update).items():
        options["update" if name == "name" else f"update's {name}"] = value
    options["maximize"] = maximize
    return {name: repr(value) for name, value in options.items() if name not in _ELSEWHERE}


def own_part(state_dict: Mapping[str, Any], direction: Direction) -> dict[str, Any]:
    """What a state dict has beside torch's own.

    Raises:
        ValueError: it was saved by another optimizer, kernel version or direction family.
    """
    if "zoopt" not in state_dict:
        raise ValueError(
            "this state dict has no 'zoopt' entry, so it is not of a ZOOptimizer: a state of "
            f"torch's own optimizers cannot continue one (it has {sorted(state_dict)})"
        )
    own: dict[str, Any] = state_dict["zoopt"]
    for what, mine in (("kernel", KERNEL_VERSION), ("direction", direction.name)):
        if own[what] != mine:
            raise ValueError(f"saved with {what} {own[what]!r}, but this one has {mine!r}")
    return own


def masters_of(slots: Sequence[Slot]) -> dict[str, Tensor]:
    """Copies of the fp32 masters, by their parameters' names."""
    return {slot.name: slot.master.clone() for slot in slots if slot.master is not None}


def restore(
    state_dict: Mapping[str, Any], slots: Sequence[Slot], state: Mapping[Tensor, dict[str, Any]]
) -> None:
    """Puts saved tensors in their places, each in the dtype that it was saved in.

    Torch casts floating state to the parameter's dtype, and zoopt's is fp32 whatever that is.

    Args:
        state_dict: what :meth:`zoopt.ZOOptimizer.state_dict` gave.
        slots: θ.
        state: the optimizer's, as torch has loaded it.
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
    """Says where an optimizer has other settings than a state that it loads; empty if nowhere.

    Args:
        state_dict: what it loads. One of an earlier zoopt has no settings.
        param_groups: the optimizer's, before.
        settings: the optimizer's; see :func:`settings_of`.
    """
    saved = {"eps": groups.each(state_dict["param_groups"], "eps")}
    return said(
        saved | state_dict["zoopt"].get("settings", {}),
        {"eps": groups.each(param_groups, "eps"), **settings},
    )


def said(saved: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Which of two values counts, for each setting that both have and that differs."""
    differing = [name for name in mine if name in saved and saved[name] != mine[name]]
    return ". ".join(
        f"eps is {_numbers(saved[name])}, the saved run's, and not {_numbers(mine[name])}: to have "
        "that, set group['eps'] of optimizer.param_groups after loading (with ZOTrainer, in a "
        "callback's on_train_begin)"
        if name == "eps"
        else f"{name} is {mine[name]}, as given; the saved run had {saved[name]}"
        for name in differing
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in dict.fromkeys(values))
