"""Pictures of a study: anytime curves with quartiles over the seeds."""

import math

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
"""Okabe and Ito's, which the colour-blind tell apart."""
STYLES = ("-", "--")


def curves(trials, path):
    """Median score against evaluations, a panel a problem, a line a contestant."""
    problems = list(dict.fromkeys(trials["problem"]))
    contestants = list(dict.fromkeys(trials["contestant"]))
    columns = 2
    rows = math.ceil((len(problems) + 1) / columns)
    figure = Figure(figsize=(11, 3.4 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns).ravel()
    for axes, problem in zip(panels, problems, strict=False):
        for number, contestant in enumerate(contestants):
            chosen = trials[(trials["problem"] == problem) & (trials["contestant"] == contestant)]
            if len(chosen):
                _line(axes, chosen["curve"], contestant, number)
        axes.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="score, lower is better")
        axes.set_title(problem, loc="left", fontsize=10)
        axes.grid(alpha=0.25)
    handles, labels = panels[0].get_legend_handles_labels()
    for axes in panels[len(problems) :]:
        axes.axis("off")
    panels[len(problems)].legend(handles, labels, frameon=False, loc="center", ncols=2)
    figure.savefig(path, metadata={"Software": None})


def _line(axes, curves, contestant, number):
    at = np.unique([evaluations for curve in curves for evaluations, _ in curve if evaluations])
    seen = []
    for curve in curves:
        x, y = np.array(curve, dtype=float).T
        seen.append(y[np.searchsorted(x, at, side="right") - 1])
    low, middle, high = np.nanquantile(np.array(seen), [0.25, 0.5, 0.75], axis=0)
    color, style = COLORS[number % len(COLORS)], STYLES[number // len(COLORS)]
    axes.plot(at, middle, style, color=color, label=contestant, linewidth=1.4)
    axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
