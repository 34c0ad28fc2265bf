"""Resolves the engine ``"auto"``, and warns of the in-place engine in half precision."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from zoopt.engines.interception.mode import opaque_modules
from zoopt.interfaces import Slot
from zoopt.parameters.masters import is_half

log = logging.getLogger("zoopt")


def engine_name(wanted: str, slots: Sequence[Slot], model: torch.nn.Module | None) -> str:
    """The name of the engine to use; warns of in-place in half precision.

    Args:
        wanted: a name; ``"auto"`` is in-place if θ is in fp32, overlay if any matrix is in half
            precision, and copy if overlay cannot intercept the model's operations.
        slots: θ.
        model: the model that θ belongs to, if it is known.
    """
    half = [slot.name for slot in slots if is_half([slot.exact])]
    if wanted == "auto":
        seen = model is None or not any(opaque_modules(model))
        return "inplace" if not half else "overlay" if seen else "copy"
    if wanted == "inplace" and half:
        log.warning(
            "engine='inplace' rounds half-precision parameters (such as %s) at every probe, so "
            "that they drift: use engine='overlay' or 'copy', which do not",
            half[0],
        )
    return wanted
