"""Whether θ is still what an optimizer was made for: the model's parameters, as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoopt.interfaces import Slot

_AFTER = "make the optimizer after"


class ParameterCheck:
    """What θ is now: each tensor's dtype and device, and the module that has it.

    Args:
        model: whose parameters θ's tensors are, if that is known.
        slots: θ.
    """

    def __init__(self, model: torch.nn.Module | None, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._kinds = self._kinds_now()
        self._names = {id(slot.tensor): slot.name for slot in slots}
        self._held: list[tuple[dict[str, Any], str, torch.Tensor]] = [
            (module._parameters, key, parameter)
            for module in (() if model is None else model.modules())
            if isinstance(module._parameters, dict)  # not where it is scripted
            for key, parameter in module._parameters.items()
            if parameter is not None and id(parameter) in self._names
        ]

    def _kinds_now(self) -> list[tuple[torch.dtype, torch.device]]:
        return [(slot.tensor.dtype, slot.tensor.device) for slot in self._slots]

    def moved(self) -> bool:
        """Whether a tensor has another dtype, or is on another device, than before."""
        return self._kinds_now() != self._kinds

    def refuse_moved(self) -> None:
        """Raises where :meth:`moved` is true.

        Raises:
            ValueError: with the tensor's name, what it was and what it is.
        """
        for slot, before, now in zip(self._slots, self._kinds, self._kinds_now(), strict=True):
            if before != now:
                was, became = (f"{dtype} on {device}" for dtype, device in (before, now))
                raise ValueError(
                    f"parameter {slot.name!r} was {was} when the run began and is {became} now; "
                    f"{_AFTER} model.to(...), and load its state_dict into it"
                )

    def refuse_lost(self) -> None:
        """Raises where a module has another parameter in a tensor's place.

        Raises:
            ValueError: with the tensor's name.
        """
        for parameters, key, tensor in self._held:
            if parameters.get(key) is not tensor:
                raise ValueError(
                    f"parameter {self._names[id(tensor)]!r} of the model was replaced by another "
                    "tensor after the optimizer was made, so tuning the old one has no effect; "
                    f"{_AFTER} load_state_dict(assign=True) or anything else that replaces it"
                )
