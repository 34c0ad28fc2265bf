"""Evaluation without autograd, which tells an objective that calls ``backward()`` not to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SAID = "does not require grad"
"""What torch says of a gradient that was asked for where autograd is disabled."""


@contextmanager
def forward_only() -> Iterator[None]:
    """A context without autograd for the user's own code.

    Raises:
        RuntimeError: re-raised from the body; with an explanation if it asked for a gradient.
    """
    try:
        with torch.no_grad():
            yield
    except RuntimeError as error:
        if _SAID not in str(error):
            raise
        raise RuntimeError(
            "the objective asked torch for a gradient, but zoopt evaluates forward passes only, "
            "without autograd: remove .backward() and zero_grad() from it, and return the loss. A "
            "derivative that is part of the loss itself is computed under torch.enable_grad()"
        ) from error
