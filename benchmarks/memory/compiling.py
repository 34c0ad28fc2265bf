"""What compiling the kernel takes, as resident memory: the other numbers leave it out."""

import multiprocessing
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor

import torch

import zoopt
from benchmarks import pages

ELEMENTS = 1 << 22
MB = 1 << 10  # ru_maxrss is in KiB on Linux


def peaks(direction, mode):
    """MiB at the peak of this process, and of the largest that it started, after two steps."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # so that it compiles
        theta = torch.nn.Parameter(torch.zeros(ELEMENTS))
        with zoopt.kernel_mode(mode):
            optimizer = zoopt.ZOOptimizer([theta], 1e-3, direction=direction, engine="inplace")
        for _ in range(2):
            optimizer.step(lambda: theta.detach().sum())
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return [usage.ru_maxrss / MB for usage in used]


def apart(direction, mode):
    """The same in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(peaks, direction, mode).result()


def measured():
    """For each direction how much larger the process is that compiles, and what it starts."""
    rows = []
    for direction in ("rademacher", "gaussian"):
        (plain, _), (compiling, started) = (apart(direction, m) for m in ("eager", "auto"))
        row = {"more in the process": compiling - plain, "largest that it starts": started}
        rows.append({"direction": direction, **row})
        print(rows[-1], flush=True)
    return rows


def table(rows):
    """The rows as Markdown, in MiB."""
    return pages.markdown(rows, dict.fromkeys(list(rows)[1:], ",.0f"))
