"""Compiles the C++ kernel for this machine's CPU: in about a second, once, for all processes.

The library is kept in ``$XDG_CACHE_HOME/zoopt`` (``~/.cache/zoopt``) under a name that depends on
the source, the compiler, its options and the CPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from zoopt.directions.kernel import gaussian, generator, rademacher

TILE = 16
"""Blocks in a tile."""

UNITS = {"gaussian": "GAUSSIAN", "rademacher": "RADEMACHER"}
DTYPES = {
    torch.float32: "FP32",
    torch.float64: "FP64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
}
"""What the source calls them; it knows them by their position."""

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
_X86 = "-march=native", "-mprefer-vector-width=512"  # the width is without effect on narrower CPUs


class _RefusedError(RuntimeError):
    """The compiler ended with an error."""


def build() -> ctypes.CDLL:
    """The library, compiled unless the cache has it.

    A compiler may know no option for this CPU, or come without OpenMP's library: the kernel is then
    compiled for any CPU, or runs on one thread.

    Raises:
        RuntimeError: if there is no compiler, or if it fails; the message has its error.
        OSError: if the library cannot be written or loaded.
    """
    source, failure = constants() + _SOURCE.read_text(encoding="utf-8"), None
    for command in _commands():
        try:
            return _library(command, source)
        except _RefusedError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _commands() -> Iterator[list[str]]:
    """What to call the compiler with, in order of preference."""
    native = _X86 if platform.machine() in ("x86_64", "AMD64") else ("-mcpu=native",)
    for cpu in (native, ()):
        for threads in ("-fopenmp", "-fopenmp-simd"):
            yield [*_compiler(), *_OPTIONS, *cpu, threads]


def _compiler() -> list[str]:
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen:
        return chosen
    for name in ("g++", "c++", "clang++"):
        if shutil.which(name):
            return [name]
    raise RuntimeError(
        "there is no C++ compiler; install one (on Linux: apt-get install g++; on macOS: "
        "xcode-select --install)"
    )


def _library(command: list[str], source: str) -> ctypes.CDLL:
    """The library that a command makes, from the cache if it is there and undamaged."""
    target = _run([*command, "-dM", "-E", "-x", "c++", "-"], "")  # names the CPU's instructions
    facts = "\0".join([source, *command, target])
    name = f"kernel-{hashlib.sha256(facts.encode()).hexdigest()[:20]}.so"
    cache = _cache()
    if cache is not None:
        try:
            return ctypes.CDLL(str(cache / name))
        except OSError:
            pass  # it is not there, or damaged
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Path(folder) / name
        _run([*command, "-x", "c++", "-", "-o", str(made)], source)
        library = ctypes.CDLL(str(made))
        if cache is not None:
            _keep(made, cache)
        return library


def _keep(made: Path, cache: Path) -> None:
    """Copies a library into the cache at once: another process may do the same."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as apart:
            Path(shutil.copy(made, apart)).replace(cache / made.name)
    except OSError:
        pass  # each process compiles its own


def _cache() -> Path | None:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zoopt"
    except RuntimeError:  # there is no home
        return None


def _run(command: list[str], given: str) -> str:
    """What a command prints. A Ctrl-C in the terminal does not reach it."""
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            process_group=0 if os.name == "posix" else None,
        )
    except OSError as error:
        raise RuntimeError(f"{command[0]}: {error.strerror}") from error
    if done.returncode < 0:
        raise RuntimeError(f"{command[0]} was killed by signal {-done.returncode}")
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        wrong = next((line for line in said if "error" in line.lower()), said[-1])
        raise _RefusedError(f"{command[0]}: {wrong}")
    return done.stdout


def constants() -> str:
    """The reference's constants as the beginning of the C++ source."""
    enums = "".join(f"enum {_listed(names.values())};\n" for names in (UNITS, DTYPES))
    return enums + "".join(
        f"constexpr {declared};\n"
        for declared in (
            f"int BLOCK = {generator.BLOCK}, HALF_BLOCK = {generator.HALF_BLOCK}, TILE = {TILE}",
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
