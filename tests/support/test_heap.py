"""Freed memory is kept where it is asked for, and nowhere else."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import zoopt
from zoopt import cli

# Blocks are asked of malloc itself: while they are held nothing else is allocated, which could
# otherwise lie above them in the heap and keep glibc from returning them.
FAULTS = """
import ctypes, resource, sys, zoopt
kept = len(sys.argv) > 1 and zoopt.keep_freed_memory()
libc, size = ctypes.CDLL(None), 1 << 20
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = (ctypes.c_void_p * 32)()
def layers():
    for _ in range(20):
        for k in range(32):
            blocks[k] = libc.malloc(size)
            ctypes.memset(blocks[k], 1, size)
        for k in range(32):
            libc.free(blocks[k])
layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
layers()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def run(*arguments: str, **environment: str) -> tuple[str, int]:
    own = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES" and "MALLOC_" not in k}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments],
        env=own | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    if HUGE.exists() and "[always]" in HUGE.read_text(encoding="utf-8"):
        pytest.skip("pages are so large here that few are faulted in anyway")
    usual, kept = run(), run("keep")
    assert (usual[0], kept[0]) == ("False", "True")
    assert usual[1] > 10 * (kept[1] + 100)


@pytest.mark.parametrize(
    "name", ["GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"]
)
def test_any_setting_of_the_environment_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    assert not zoopt.keep_freed_memory()


def test_the_command_line_keeps_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append(True))
    assert cli.main(["list", "directions"]) == 0
    assert asked == [True]
