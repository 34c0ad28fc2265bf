"""Compiling the kernel once per variant, and falling back to eager where that cannot be done."""

from __future__ import annotations

import logging
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Source = Callable[..., None]
"""A function of tensors that writes one of them."""

COMPILE_FROM = 1 << 20
"""A θ of this many elements repays the seconds that compiling takes; a smaller one runs eagerly."""

_EXAMPLE_ROWS = 256

log = logging.getLogger("zoopt")


@dataclass
class _State:
    mode: str = "auto"
    broken: bool = False
    seconds: float = 0.0


_state = _State()
_kernels: dict[str, Source] = {}


def wanted(elements: int) -> bool:
    """Whether a θ of so many elements runs compiled kernels."""
    if _state.mode == "auto":
        return elements >= COMPILE_FROM
    return _state.mode == "compiled"


def seconds() -> float:
    """How long this process has spent compiling kernels so far."""
    return _state.seconds


@contextmanager
def counted() -> Iterator[None]:
    """What is done in a with block, and succeeds, counts as compiling."""
    started = time.perf_counter()
    yield
    _state.seconds += time.perf_counter() - started


def reason(error: Exception) -> str:
    """An error in one line."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


@contextmanager
def kernel_mode(mode: str) -> Iterator[None]:
    """Forces ``"eager"`` or ``"compiled"`` kernels for the optimizers made in a with block.

    The default, ``"auto"``, compiles for a θ of a million elements and more.
    """
    if mode not in ("auto", "eager", "compiled"):
        raise ValueError(f"kernel mode {mode!r} is none of 'auto', 'eager' and 'compiled'")
    previous, _state.mode = _state.mode, mode
    try:
        yield
    finally:
        _state.mode = previous


def kernel(
    name: str,
    source: Source,
    constants: Sequence[Tensor],
    rows: Sequence[Tensor],
    narrow: bool = False,
) -> Source | None:
    """The compiled kernel of a name; None, after one warning, where there is no compiler.

    Args:
        name: tells it from others: a kernel is specialized for its source, the number of terms and
            the dtype and device it runs on, and for no length and no number.
        source: what is compiled, a function of the constants and the rows.
        constants: its first arguments.
        rows: the others, of which only the first dimension differs between calls. It is run once on
            copies, so that a failure cannot happen halfway through θ.
        narrow: for vectors of 256 bits also where there are ones of 512.
    """
    if _state.broken:
        return None
    if name not in _kernels:
        try:
            with counted():
                made = _compile(name, source, rows[0].device.type, narrow)
                # The coefficients of polynomials are constants of the code, not arguments of it.
                with torch._dynamo.config.patch(specialize_float=True):
                    made(*constants, *map(_scratch, rows))
            _kernels[name] = made
        except (torch.OutOfMemoryError, MemoryError):
            raise  # says nothing of the compiler; the next launch tries again
        except Exception as error:
            _state.broken = True
            log.warning(
                "zoopt runs its kernel uncompiled, which gives the same numbers, slowly, because "
                "torch.compile failed: %s. On Linux a C++ compiler is what it needs "
                "(apt-get install g++), on CUDA Triton (pip install triton).",
                reason(error),
            )
            return None
    return _kernels[name]


def _scratch(part: Tensor) -> Tensor:
    """A first row many times over, as the example that a kernel is compiled for.

    The compiler sees that the other dimensions stay, and leaves bounds and divisions out of its
    inner loops; and that there are rows enough for all threads.
    """
    rows = part[:1].repeat(_EXAMPLE_ROWS, *(1,) * (part.ndim - 1))
    for dimension in range(1, rows.ndim):
        torch._dynamo.mark_static(rows, dimension)
    return rows


def _compile(name: str, source: Source, device: str, narrow: bool) -> Source:
    """Dynamo keeps compiled graphs by code object, so each kernel gets one of its own.

    It also compiles anew where it meets another state of autocast, which means nothing here.
    """
    assert isinstance(source, types.FunctionType)
    own = types.FunctionType(
        source.__code__.replace(co_name=f"zoopt_{name}"),
        source.__globals__,
        source.__name__,
        source.__defaults__,
        source.__closure__,
    )
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    options: dict[str, Any] = {"cpp.simdlen": 256} if narrow and wide else {}
    if device != "cpu":
        # Triton then leaves a product and a sum two roundings, as eager execution has them.
        options["emulate_precision_casts"] = True
    compiled: Source = torch.compile(own, dynamic=True, fullgraph=True, options=options)

    def launch(*tensors: Tensor) -> None:
        inside = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if inside else nullcontext():
            compiled(*tensors)

    return launch
