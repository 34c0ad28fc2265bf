"""Products of fp32 matrices in fp32, regardless of the precision set for the model.

With TF32, with bf16 on a CPU, and under autocast, torch rounds factors to 8 or 11 bits: suitable
for a forward, but an update is often a thousandth of the perturbation that it is added to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_CPU: Any = torch.backends.mkldnn
_PRODUCTS = (torch.backends.cuda.matmul, _CPU.matmul)


@contextmanager
def full_precision() -> Iterator[None]:
    """A context in which products of fp32 matrices do not round their factors.

    Torch has an older setting for all devices, and one for each device, and refuses to run if
    they contradict each other; the older one cannot be read if only the others were set.
    """
    held = [products.fp32_precision for products in _PRODUCTS]
    try:
        everywhere = torch.get_float32_matmul_precision()
    except RuntimeError:
        everywhere = None
    if everywhere is not None:
        torch.set_float32_matmul_precision("highest")
    for products in _PRODUCTS:
        products.fp32_precision = "ieee"
    try:
        with _without_autocast():
            yield
    finally:
        if everywhere is not None:
            torch.set_float32_matmul_precision(everywhere)
        for products, precision in zip(_PRODUCTS, held, strict=True):
            products.fp32_precision = precision


@contextmanager
def _without_autocast() -> Iterator[None]:
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
