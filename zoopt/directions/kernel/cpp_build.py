"""Compiles the C++ kernel for this machine's CPU: in half a second, once, for all processes.

The library is kept in ``$XDG_CACHE_HOME/zoopt`` (``~/.cache/zoopt``) under a name that depends on
the source, the compiler, its options and the CPU.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from zoopt.directions.kernel import gaussian, generator, rademacher

TILE = 16
"""Blocks in a tile."""

_SOURCE = Path(__file__).with_name("passes.cpp")
_OPTIONS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",  # round products and sums separately, as torch does
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)
_THREADS = ("-fopenmp", "-fopenmp-simd")
"""With threads; or, where the compiler comes without OpenMP's library, on one."""


def build() -> ctypes.CDLL:
    """The library, compiled unless the cache has it.

    Raises:
        RuntimeError: if there is no compiler, or if it fails; the message has its last line.
        OSError: if the library cannot be written or loaded.
    """
    command, source = [*_compiler(), *_OPTIONS, *_for_this_cpu()], constants() + _SOURCE.read_text()
    target = _run([*command, "-dM", "-E", "-x", "c++", "-"], "")
    facts = "\0".join([source, *command, target])
    name = f"kernel-{hashlib.sha256(facts.encode()).hexdigest()[:20]}.so"
    path = _folder() / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as apart:
            made = Path(apart) / name
            compile_ = [*command, "-x", "c++", "-", "-o", str(made)]
            with_threads, without = ([*compile_, option] for option in _THREADS)
            try:
                _run(with_threads, source)
            except RuntimeError:
                _run(without, source)
            made.replace(path)  # at once: another process may be compiling it too
    return ctypes.CDLL(str(path))


def constants() -> str:
    """The reference's constants as the beginning of the C++ source."""
    return "".join(
        f"constexpr {declared};\n"
        for declared in (
            f"int BLOCK = {generator.BLOCK}, TILE = {TILE}",
            f"int SHIFTS[] = {_listed(generator.SHIFTS)}",
            f"unsigned FACTORS[] = {_listed(map(_word, generator.FACTORS))}",
            f"unsigned SIGN_BIT = {_word(generator.SIGN_BIT)}, ONE = {_word(rademacher.ONE)}",
            f"unsigned SQRT_HALF_BITS = {_word(gaussian.SQRT_HALF_BITS)}",
            f"float MINUS_TWICE_LOG_2 = {_real(-2.0 * math.log(2.0))}",
            f"float LOG[] = {_listed(map(_real, gaussian.LOG))}",
            f"float SIN[] = {_listed(map(_real, gaussian.SIN))}",
            f"float COS[] = {_listed(map(_real, gaussian.COS))}",
        )
    )


def _word(number: int) -> str:
    return f"0x{number & 0xFFFFFFFF:08X}u"


def _real(number: float) -> str:
    return f"float({number.hex()})"


def _listed(items: Iterable[object]) -> str:
    return f"{{{', '.join(map(str, items))}}}"


def _compiler() -> list[str]:
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen:
        return chosen
    for name in ("g++", "c++", "clang++"):
        if shutil.which(name):
            return [name]
    raise RuntimeError("no C++ compiler found")


@functools.cache
def _for_this_cpu() -> tuple[str, ...]:
    if platform.machine() in ("x86_64", "AMD64"):
        return "-march=native", "-mprefer-vector-width=512"  # without effect on narrower CPUs
    return ("-mcpu=native",)


def _run(command: list[str], given: str) -> str:
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{command[0]}: {said[-1]}")
    return done.stdout


def _folder() -> Path:
    """The cache's folder; if that cannot be written to, one for this process."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zoopt"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary()
    return cache if os.access(cache, os.W_OK) else _temporary()


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="zoopt-"))
