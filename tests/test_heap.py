"""Freed memory is kept where it is asked for, and nowhere else."""

import os
import platform
import subprocess
import sys

import pytest

import zoopt
from zoopt import cli

FAULTS = """
import resource, torch, zoopt
torch.set_num_threads(1)
def chain(x):
    for _ in range(100):
        x = x + 1
    return x
kept, x = zoopt.keep_freed_memory(), torch.ones(1000, 1500)
chain(x)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
chain(x)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES_TOUCHED = 100 * 1000 * 1500 * 4 // 4096


def run(**environment: str) -> tuple[str, int]:
    own = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES" and "MALLOC_" not in k}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env=own | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    kept, faults = run()
    assert kept == "True"
    assert faults < PAGES_TOUCHED / 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_settings_of_the_environment_hold() -> None:
    kept, faults = run(MALLOC_TRIM_THRESHOLD_="131072")
    assert kept == "False"
    assert faults > PAGES_TOUCHED / 2


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_"])
def test_any_setting_turns_it_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    assert not zoopt.keep_freed_memory()


def test_the_command_line_keeps_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append(True))
    assert cli.main(["list", "directions"]) == 0
    assert asked == [True]
