"""Checks that θ still consists of the model's parameters, with their dtypes and devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoopt.interfaces import Slot

_AFTER = "create the optimizer after"


class ParameterCheck:
    """Records each tensor's dtype and device and the module that holds it, for later comparison.

    Args:
        model: the model whose parameters θ consists of, if it is known.
        slots: θ.
    """

    def __init__(self, model: torch.nn.Module | None, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._kinds = self._kinds_now()
        self._names = {id(slot.tensor): slot.name for slot in slots}
        self._held: list[tuple[dict[str, Any], str, torch.Tensor]] = [
            (module._parameters, key, parameter)
            for module in (() if model is None else model.modules())
            if isinstance(module._parameters, dict)  # not if it is scripted
            for key, parameter in module._parameters.items()
            if parameter is not None and id(parameter) in self._names
        ]

    def _kinds_now(self) -> list[tuple[torch.dtype, torch.device]]:
        return [(slot.tensor.dtype, slot.tensor.device) for slot in self._slots]

    def moved(self) -> bool:
        """Whether a tensor's dtype or device has changed."""
        return self._kinds_now() != self._kinds

    def refuse_moved(self) -> None:
        """Raises if :meth:`moved` is true.

        Raises:
            ValueError: names the tensor, and its old and new dtype and device.
        """
        for slot, before, now in zip(self._slots, self._kinds, self._kinds_now(), strict=True):
            if before != now:
                was, became = (f"{dtype} on {device}" for dtype, device in (before, now))
                raise ValueError(
                    f"parameter {slot.name!r} was {was} when the run began and is {became} now; "
                    f"{_AFTER} model.to(...), and load the saved state_dict into it"
                )

    def refuse_lost(self) -> None:
        """Raises if a module now holds another parameter in place of a tensor of θ.

        Raises:
            ValueError: names the tensor.
        """
        for parameters, key, tensor in self._held:
            if parameters.get(key) is not tensor:
                raise ValueError(
                    f"parameter {self._names[id(tensor)]!r} of the model was replaced by another "
                    "tensor after the optimizer was created, so tuning the old one has no effect; "
                    f"{_AFTER} load_state_dict(assign=True) or anything else that replaces it"
                )
