"""What an evaluation costs beside the objective, and how much memory is kept, against d.

Every method and d has a process of its own, in which the objective is a number that costs nothing.
Time is the processor's, of ask and tell, or of a step, for each evaluation. In between, the same
process draws d standard normal numbers with numpy; the ratio of the two is what compares methods
across machines and their moods. Memory is by how much the process's peak rose above θ. A method
gets EVALUATIONS evaluations, or SECONDS but no fewer than FEWEST, and MEMORY.

`python -m benchmarks.functions.cost` writes results/cost.csv and cost.png.
"""

import argparse
import functools
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import zoopt
from zoopt.baselines.searches import Nevergrad, PyCMA
from zoopt.bench.plots import COLORS
from zoopt.bench.processes import Died, forked

RESULTS = Path(__file__).parent / "results"
DIMENSIONS = (10**3, 10**4, 10**5, 10**6, 10**7)
EVALUATIONS = 60
SECONDS = 8.0
FEWEST = 10
MEMORY = 8 << 30
LEAST = 0.1
"""Megabytes below which memory is not told apart."""
FULL = 2_000
"""Dimensions up to which a full covariance is tried."""


def ours(d, direction):
    """MeZO's step, of two evaluations."""
    x = torch.nn.Parameter(torch.zeros(d))
    value = iter(np.random.default_rng(0).random(10**6)).__next__
    make = lambda: zoopt.ZOOptimizer([x], lr=1e-6, estimator="mezo", direction=direction)  # noqa: E731
    make().step(value)  # compiles its kernel
    before = _reset_peak()
    optimizer = make()
    return before, 2, lambda: optimizer.step(value)


def theirs(make, d):
    """Ask and tell of a search, which keeps its own θ."""
    value = iter(np.random.default_rng(0).random(10**6)).__next__
    before = _reset_peak()
    search = make(d)

    def step():
        search.ask()
        search.tell(value())

    return before, 1, step


def _nevergrad(name):
    return functools.partial(theirs, lambda d: Nevergrad(name, d, budget=EVALUATIONS))


METHODS = {
    "zoopt MeZO": functools.partial(ours, direction="gaussian"),
    "zoopt MeZO, Rademacher": functools.partial(ours, direction="rademacher"),
    "nevergrad OnePlusOne": _nevergrad("OnePlusOne"),
    "nevergrad SPSA": _nevergrad("SPSA"),
    "nevergrad TwoPointsDE": _nevergrad("TwoPointsDE"),
    "nevergrad DiagonalCMA": _nevergrad("DiagonalCMA"),
    "nevergrad CMA": _nevergrad("CMA"),
    "pycma, diagonal": functools.partial(theirs, lambda d: PyCMA(d, diagonal=True)),
    "pycma": functools.partial(theirs, PyCMA),
}
FULL_COVARIANCE = ("nevergrad CMA", "pycma")


def measured(name, d, evaluations=EVALUATIONS):
    """A row: milliseconds and draws an evaluation, and megabytes."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        before, each, step = METHODS[name](d)
        drawn = np.empty(d)
        rng = np.random.default_rng(0)
        spent = draws = 0.0
        count = 0
        while count < evaluations and (spent < SECONDS or count < FEWEST):
            started = time.process_time()
            step()
            middle = time.process_time()
            rng.standard_normal(out=drawn)
            spent += middle - started
            draws += (time.process_time() - middle) * each
            count += each
    except (MemoryError, RuntimeError) as error:
        return {"method": name, "d": d, "reason": f"{type(error).__name__} within 8 GB"}
    kept = max(0, _peak() - before - drawn.nbytes)
    return {
        "method": name,
        "d": d,
        "evaluations": count,
        "ms": 1e3 * spent / count,
        "draws": spent / draws,
        "mb": kept / 1e6,
        "reason": "",
    }


def _reset_peak():
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM: this needs Linux")


def table(dimensions=DIMENSIONS, evaluations=EVALUATIONS):
    """All rows; one that was killed has its reason."""
    planned = [
        (name, d)
        for d in dimensions
        for name in METHODS
        if d <= FULL or name not in FULL_COVARIANCE
    ]
    for make in METHODS.values():  # what a first step imports is not to count
        _, _, step = make(100)
        for _ in range(30):
            step()
    tasks = [functools.partial(measured, name, d, evaluations) for name, d in planned]
    rows = []
    for number, answer in forked(tasks):
        name, d = planned[number]
        died = {"method": name, "d": d, "reason": str(answer)}
        rows.append(died if isinstance(answer, Died) else answer)
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def plot(found, path):
    """Time in draws of d normal numbers, and bytes by d, against d."""
    figure = Figure(figsize=(11, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    labels = {
        "draws": "time an evaluation ÷ drawing d normal numbers",
        "mb": f"peak memory beside θ, MB ({LEAST} where less)",
    }
    for panel, (column, label) in zip(axes, labels.items(), strict=True):
        for number, name in enumerate(METHODS):
            rows = found[(found["method"] == name) & found[column].notna()]
            color, marker = COLORS[number % len(COLORS)], "osD^vP*X<"[number]
            style = "-" if name.startswith("zoopt") else "--"
            panel.plot(
                rows["d"],
                rows[column].clip(lower=LEAST),
                style,
                color=color,
                marker=marker,
                label=name,
                markersize=5,
            )
        panel.set(xscale="log", yscale="log", xlabel="dimension d", ylabel=label)
        panel.grid(alpha=0.25)
    d = np.array(DIMENSIONS)
    axes[1].plot(d, np.maximum(4 * d / 1e6, LEAST), ":", color="#666666", label="θ itself")
    handles, names = axes[1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="toy size, nothing written")
    if parser.parse_args().smoke:
        table((100, 1000), 4)
        return
    found = table()
    RESULTS.mkdir(exist_ok=True)
    found.to_csv(RESULTS / "cost.csv", index=False, float_format="%.4g")
    plot(found, RESULTS / "cost.png")


if __name__ == "__main__":
    main()
