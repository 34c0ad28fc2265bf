"""What compiling the kernel takes, as resident memory: the other numbers leave it out."""

import multiprocessing
import os
import resource
import shlex
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

import zoopt
from benchmarks import pages

ELEMENTS = 1 << 22
MB = 1 << 10  # ru_maxrss is in KiB on Linux


def peaks(direction, mode):
    """MiB at the peak of this process after two steps, and of the compiler."""
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "peaks"
        compiler = shlex.join([sys.executable, str(Path(__file__).with_name("compiler.py"))])
        os.environ |= {"XDG_CACHE_HOME": folder, "CXX": compiler, "COMPILER_PEAKS": str(noted)}
        theta = torch.nn.Parameter(torch.zeros(ELEMENTS))
        optimizer = zoopt.ZOOptimizer([theta], 1e-3, direction=direction, engine="inplace")
        with zoopt.kernel_mode(mode):
            for _ in range(2):
                optimizer.step(lambda: theta.detach().sum())
        compilers = noted.read_text().split() if noted.exists() else ["0"]
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return here / MB, max(map(int, compilers)) / MB


def apart(direction, mode):
    """The same in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(peaks, direction, mode).result()


def measured():
    """For each direction how much larger the process is that compiles, and the compiler's size."""
    rows = []
    for direction in ("rademacher", "gaussian"):
        (plain, _), (compiling, compiler) = (apart(direction, m) for m in ("eager", "auto"))
        row = {"more in the process": compiling - plain, "the compiler": compiler}
        rows.append({"direction": direction, **row})
        print(rows[-1], flush=True)
    return rows


def table(rows):
    """The rows as Markdown, in MiB."""
    return pages.markdown(rows, dict.fromkeys(list(rows)[1:], ",.0f"))
