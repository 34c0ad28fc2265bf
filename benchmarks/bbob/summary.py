"""Runtime distributions of COCO's logs, read by cocopp, as a table and a picture."""

import warnings

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zoopt.bench.plots import STYLES

TARGETS = 10.0 ** np.arange(-0.1, -4.05, -0.1)
"""Distances from the optimum to be reached, in units of the start's: down to a ten-thousandth.

COCO's own, from 100 to 1e-8 whatever the function, are for budgets a hundred times larger: on its
large-scale functions nobody reaches any of them here.
"""

COLORS = {
    "ZooptSPSA": "#0072B2",
    "ZooptNSPSA": "#0072B2",
    "ZooptMeZO": "#0072B2",
    "OnePlusOne": "#D55E00",
    "NGOpt": "#D55E00",
    "DiagonalCMA": "#009E73",
    "CMA": "#009E73",
    "TwoPointsDE": "#CC79A7",
    "PSO": "#CC79A7",
    "SPSA": "#999999",
    "RandomSearch": "#999999",
    "pycma": "#000000",
    "pycma-diagonal": "#000000",
}
"""A hue of Okabe and Ito's for each kind; members of a kind differ in their dashes."""


def read(exdata, suite, name):
    """One search's logs of a suite: cocopp's data sets by (d, function)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cocopp import pproc

        data = pproc.DataSetList([str(exdata / f"{suite}-{name}")])
    return {(found.dim, found.funcId): found for found in data}


def runs(exdata, suite, names):
    """A row for each search, function, d and target: evaluations to it, infinite if not reached.

    The start's distance from the optimum is the median over the searches' first evaluations.
    """
    data = {name: read(exdata, suite, name) for name in names}
    rows = []
    for d, function in next(iter(data.values())):
        found = {name: sets[d, function] for name, sets in data.items()}
        start = np.median([np.median(one.funvals[0, 1:]) for one in found.values()])
        for name, one in found.items():
            for target, evaluations in zip(TARGETS, one.detEvals(start * TARGETS), strict=True):
                rows += [(suite, name, d, function, target, count) for count in evaluations]
    columns = ["suite", "search", "d", "function", "target", "evaluations"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(evaluations=table["evaluations"].fillna(np.inf))


def table(found, budgets):
    """The share of (function, target) reached at a tenth of the budget and at its end.

    Args:
        found: rows of :func:`runs`.
        budgets: evaluations a dimension of each suite.
    """
    budget = found["suite"].map(budgets) * found["d"]
    scored = found.assign(
        budget=budget,
        early=found["evaluations"] <= budget / 10,
        end=found["evaluations"] <= budget,
    )
    made = scored.groupby(["suite", "d", "search"], as_index=False, sort=False).agg(
        functions=("function", "nunique"),
        budget=("budget", "first"),
        early=("early", "mean"),
        end=("end", "mean"),
    )
    made = made.sort_values(["suite", "d", "end"], ascending=[True, True, False], kind="stable")
    return made.rename(
        columns={"early": "targets at a tenth of the budget", "end": "targets at its end"}
    )


def plot(found, budgets, path):
    """Share of (function, target) reached against evaluations ÷ d, a panel for each suite and d."""
    panels = list(found.groupby(["suite", "d"], sort=False))
    columns = 3
    rows = -(-(len(panels)) // columns)
    figure = Figure(figsize=(12.5, 3.4 * rows + 0.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    drawn = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, ((suite, d), rows_of) in zip(drawn, panels, strict=False):
        x = np.geomspace(1 / d, budgets[suite], 200)
        for name, chosen in rows_of.groupby("search", sort=False):
            spent = np.sort(chosen["evaluations"]) / d
            y = np.searchsorted(spent, x, side="right") / len(spent)
            kind = [other for other in COLORS if COLORS[other] == COLORS[name]].index(name)
            axes.plot(x, y, color=COLORS[name], linestyle=STYLES[kind], label=name, linewidth=1.5)
        axes.set(xscale="log", xlabel="evaluations ÷ d", ylabel="share of targets", xlim=x[[0, -1]])
        count = rows_of["function"].nunique()
        axes.set_title(f"{suite}, d = {d}, {count} functions", loc="left", fontsize=10)
        axes.grid(alpha=0.25)
    for axes in drawn[len(panels) :]:
        axes.axis("off")
    handles, labels = drawn[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Software": None})


def write(exdata, folder, experiments, names):
    """Reads what is under exdata/, and writes bbob.csv and bbob.png into the folder."""
    found = pd.concat(
        [runs(exdata, experiment.suite, names) for experiment in experiments], ignore_index=True
    )
    budgets = {experiment.suite: experiment.budget for experiment in experiments}
    folder.mkdir(parents=True, exist_ok=True)
    table(found, budgets).to_csv(folder / "bbob.csv", index=False, float_format="%.3f")
    plot(found, budgets, folder / "bbob.png")
