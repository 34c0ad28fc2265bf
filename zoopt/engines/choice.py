"""Which engine ``"auto"`` is, and what the one that was asked for costs in half precision."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from zoopt.engines.interception.mode import opaque_modules
from zoopt.interfaces import Slot
from zoopt.parameters.masters import is_half

log = logging.getLogger("zoopt")


def engine_name(wanted: str, slots: Sequence[Slot], model: torch.nn.Module | None) -> str:
    """The name of the engine to take; warns of in-place in half precision.

    Args:
        wanted: a name; ``"auto"`` is in-place where θ is in fp32, overlay where any matrix is in
            half precision, and copy where overlay cannot see into the model.
        slots: θ.
        model: where θ is from, if that is known.
    """
    half = [slot.name for slot in slots if is_half([slot.exact])]
    if wanted == "auto":
        seen = model is None or not any(opaque_modules(model))
        return "inplace" if not half else "overlay" if seen else "copy"
    if wanted == "inplace" and half:
        log.warning(
            "the in-place engine rounds half-precision parameters (%s) at every probe, and they "
            "drift; engine='overlay' and 'copy' do not",
            half[0],
        )
    return wanted
