"""Does progress depend on the dimension d, or on the effective rank r? Quadratics of both.

f(x) = ½ Σ x_i² over r of d variables, spread evenly, has effective rank tr H / ‖H‖ = r. (Were they
the first r, every d would see the same z there, and the same numbers.) With Gaussian z, a step
of SPSA with lr η multiplies E[f] by 1 − 2η + (r + 2) η², whatever d is; at the best η = 1/(r + 2)
that is 1 − 1/(r + 2). This is the claim of the MeZO paper (arXiv 2305.17333, section 4). Measured
is by how much ln f falls in a step, times r + 2: a constant, if the claim holds. (It is above 1,
because the mean of the logarithm is below the logarithm of the mean.)

`python -m benchmarks.functions.rank` writes results/rank.csv and rank.png.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import zoopt
from zoopt.bench.plots import COLORS

RESULTS = Path(__file__).parent / "results"
DIMENSIONS = (10**3, 10**4, 10**5, 10**6, 10**7)
RANKS = {10: 10**7, 30: 10**7, 100: 10**6, 300: 10**5}
"""Each effective rank, and the largest dimension it is run at."""
MARKERS = "osD^v"


def measured(rank, d, steps, seeds):
    """By how much ln f falls in a step times r + 2, in each of some runs."""
    rates = []
    for seed in range(seeds):
        x = torch.nn.Parameter(torch.zeros(d))
        counted = torch.linspace(0, d - 1, rank).long()
        x.data[counted] = 1.0
        optimizer = zoopt.ZOOptimizer(
            [x], lr=1 / (rank + 2), estimator=zoopt.MeZO(eps=1e-3), seed=seed
        )
        value = lambda x=x, i=counted: 0.5 * (x[i].double() ** 2).sum()  # noqa: E731
        first = value()
        with optimizer.chain():
            for _ in range(steps):
                optimizer.step(value)
            optimizer.settle()
        rates.append(float((first / value()).detach().log()) / steps * (rank + 2))
    return rates


def table(dimensions=DIMENSIONS, ranks=RANKS, seeds=5):
    """A row for each r and d: median and range of the rate over runs of 2r steps."""
    rows = []
    for rank, largest in ranks.items():
        for d in dimensions:
            if 2 * rank <= d <= largest:
                rates = pd.Series(measured(rank, d, 2 * rank, seeds))
                row = {"r": rank, "d": d, "steps": 2 * rank, "seeds": seeds}
                rows.append(
                    {**row, "low": rates.min(), "rate": rates.median(), "high": rates.max()}
                )
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def plot(found, path):
    """Progress a step against d, a line for each r; and against r, a marker for each d."""
    figure = Figure(figsize=(9.6, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    styles = {r: (COLORS[k], MARKERS[k]) for k, r in enumerate(sorted(set(found["r"])))}
    for r, rows in found.groupby("r"):
        color, marker = styles[r]
        middle, low, high = (rows[name] / (r + 2) for name in ("rate", "low", "high"))
        bars = np.array([middle - low, high - middle])
        left.errorbar(rows["d"], middle, bars, marker=marker, color=color, label=f"r = {r}")
        right.errorbar(rows["r"], middle, bars, marker=marker, color=color, linestyle="none")
    r = np.array(sorted(styles))
    right.plot(r, 1 / (r + 2), "--", color="black", linewidth=1, label="1 / (r + 2)")
    left.set(xscale="log", yscale="log", xlabel="dimension d")
    left.set_ylabel("fall of ln f in a step")
    right.set(xscale="log", xlabel="effective rank r (all d together)")
    for axes in (left, right):
        axes.grid(alpha=0.25, which="both")
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="toy size, nothing written")
    if parser.parse_args().smoke:
        table((100, 1000), {5: 1000}, seeds=1)
        return
    found = table()
    RESULTS.mkdir(exist_ok=True)
    found.to_csv(RESULTS / "rank.csv", index=False, float_format="%.4g")
    plot(found, RESULTS / "rank.png")


if __name__ == "__main__":
    main()
