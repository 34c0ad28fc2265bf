"""Compiles the kernel once per variant, and falls back to eager execution if that fails."""

from __future__ import annotations

import functools
import logging
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Source = Callable[..., None]
"""A function of tensors that writes to one of them."""

COMPILE_FROM = 1 << 20
"""Number of elements of θ from which kernels are compiled at once."""

COMPILE_AFTER = 5.0
"""Seconds of eager execution after which a kernel is compiled: about what compiling it takes."""

_EXAMPLE_ROWS = 256

log = logging.getLogger("zoopt")


@dataclass
class _State:
    mode: str = "auto"
    broken: bool = False
    seconds: float = 0.0
    eager: dict[str, float] = field(default_factory=dict)


_state = _State()
_kernels: dict[str, Source] = {}


def wanted(elements: int) -> bool:
    """Whether compiled kernels are used for a θ with this number of elements."""
    if _state.mode == "auto":
        return elements >= COMPILE_FROM
    return _state.mode == "compiled"


def allowed() -> bool:
    """Whether kernels may be compiled, for a θ of any size."""
    return _state.mode != "eager"


def due(name: str) -> bool:
    """Whether a kernel that runs eagerly on a CPU has taken as long as compiling it would."""
    return _state.mode == "auto" and _state.eager.get(name, 0.0) > COMPILE_AFTER


@contextmanager
def eagerly(name: str) -> Iterator[None]:
    """Adds the time of a with block to a kernel's eager execution."""
    started = time.perf_counter()
    yield
    _state.eager[name] = _state.eager.get(name, 0.0) + time.perf_counter() - started


def works() -> bool:
    """Whether no kernel has failed to compile so far."""
    return not _state.broken


def seconds() -> float:
    """The time in seconds that this process has spent compiling kernels so far."""
    return _state.seconds


@contextmanager
def counted() -> Iterator[None]:
    """Counts the time of a with block, if it succeeds, as compilation."""
    started = time.perf_counter()
    yield
    _state.seconds += time.perf_counter() - started


def reason(error: Exception) -> str:
    """The first line of an error's message, or the name of its class."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


@contextmanager
def kernel_mode(mode: str) -> Iterator[None]:
    """Forces ``"eager"`` or ``"compiled"`` kernels for the optimizers created in a with block.

    The default, ``"auto"``, compiles for a θ of a million elements or more, and for a smaller one
    on a CPU those kernels that have run for 5 seconds. Results on a CPU are the same.
    """
    if mode not in ("auto", "eager", "compiled"):
        raise ValueError(f"kernel mode {mode!r}; expected 'auto', 'eager' or 'compiled'")
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
    """The compiled kernel with a given name; None, after one warning, if compiling fails.

    Args:
        name: identifies the kernel, which is specialized for its source, the number of terms, the
            dtype and the device, but not for lengths or values.
        source: the function to compile, which takes the constants and the rows.
        constants: its first arguments.
        rows: its other arguments, of which only the first dimension differs between calls. It is
            run once on copies, so that a failure cannot happen halfway through θ.
        narrow: use 256-bit vectors even if the CPU has 512-bit ones, as on Intel's always.
    """
    if _state.broken:
        return None
    if name not in _kernels:
        try:
            with counted():
                made = _compile(name, source, rows[0].device.type, narrow)
                # The coefficients of polynomials become constants in the code, not arguments.
                with torch._dynamo.config.patch(specialize_float=True):
                    made(*constants, *map(_scratch, rows))
            _kernels[name] = made
        except (torch.OutOfMemoryError, MemoryError):
            raise  # not the compiler's fault; the next launch tries again
        except Exception as error:
            _state.broken = True
            log.warning(
                "zoopt runs its kernel uncompiled (the results are the same, but it is slower), "
                "because torch.compile failed: %s. On Linux it needs a C++ compiler "
                "(apt-get install g++), on CUDA Triton (pip install triton).",
                reason(error),
            )
            return None
    return _kernels[name]


def _scratch(part: Tensor) -> Tensor:
    """The first row repeated many times, as example input for compiling a kernel.

    Rows are as far apart as in the given tensor. The other dimensions are marked as static, so that
    the compiler omits bounds checks and divisions from its inner loops; and there are enough rows
    for all threads.
    """
    apart = part[:1].numel() if part.is_contiguous() else part.stride(0)
    memory = part.new_empty(_EXAMPLE_ROWS, apart)
    rows = memory.as_strided((_EXAMPLE_ROWS, *part.shape[1:]), (apart, *part.stride()[1:]))
    rows.copy_(part[:1].expand_as(rows))
    for dimension in range(1, rows.ndim):
        torch._dynamo.mark_static(rows, dimension)
    return rows


@functools.cache
def _of_intel() -> bool:
    """Whether the CPU is Intel's, on which these kernels are slower with 512-bit vectors."""
    facts = Path("/proc/cpuinfo")
    return facts.exists() and "GenuineIntel" in facts.read_text(encoding="utf-8")


def _compile(name: str, source: Source, device: str, narrow: bool) -> Source:
    """Compiles a source as a separate code object, because Dynamo caches graphs by code object.

    Autocast is disabled when it runs: Dynamo would recompile for it, but the kernel ignores it.
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
    narrow = wide and (narrow or _of_intel())
    options: dict[str, Any] = {"cpp.simdlen": 256} if narrow else {}
    if device != "cpu":
        # With this, Triton rounds a product and a sum separately, as eager execution does.
        options["emulate_precision_casts"] = True
    compiled: Source = torch.compile(own, dynamic=True, fullgraph=True, options=options)

    def launch(*tensors: Tensor) -> None:
        inside = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if inside else nullcontext():
            compiled(*tensors)

    return launch
