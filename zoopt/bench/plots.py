"""Plots of a study: anytime curves, shares of targets reached, performance profiles."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zoopt.bench.targets import PROBLEM, PROFILE, TARGETS, profile, reached, summary

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colour-blind safe palette, without yellow, which is hard to see on white."""

STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)))

_FAR = 1e30
"""Value at which a non-finite score is drawn, outside the plot."""

DECADES = 30
"""Ratio of scores above which an axis is logarithmic."""

SHOWN = 7
"""Default number of lines drawn in colour."""


def curves(trials: pd.DataFrame, shown: Sequence[str] = ()) -> bytes:
    """Plots median scores by evaluations with quartiles over seeds, one panel per problem.

    Args:
        trials: see :func:`zoopt.bench.rows`.
        shown: contestants in colour, the others being thin and grey; by default the first in
            :func:`zoopt.bench.targets.summary`.

    Returns:
        A PNG.
    """
    shown = tuple(shown) or tuple(summary(trials)["contestant"][:SHOWN])
    problems = list(trials.groupby(PROBLEM, sort=False))
    columns = min(3, len(problems))
    rows = math.ceil(len(problems) / columns)
    figure = _figure(4.4 * columns, 3.3 * rows + 1.1)
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, ((problem, _), found) in zip(panels, problems, strict=False):
        for contestant, chosen in found.groupby("contestant", sort=False):
            _curve(axes, [curve for curve in chosen["curve"] if curve], str(contestant), shown)
        higher = bool(found["higher_is_better"].any())
        axes.set_xscale("log")
        if not higher:
            _limit(axes, found)
        better = "higher" if higher else "lower"
        axes.set(xlabel="evaluations", ylabel=f"score ({better} is better)")
        axes.set_title(_wrapped(str(problem)), loc="left", fontsize=10)
        axes.grid(alpha=0.25)
    for axes in panels[len(problems) :]:
        axes.axis("off")
    _legend(figure, shown, list(dict.fromkeys(trials["contestant"])))
    return _png(figure)


def targets(trials: pd.DataFrame, shown: Sequence[str] = ()) -> bytes:
    """Plots the share of (problem, seed, target) reached by share of the budget, as a PNG."""
    shown = tuple(shown) or tuple(summary(trials)["contestant"][:SHOWN])
    hits = reached(trials)
    figure = _figure(7.6, 5.2)
    axes = figure.add_subplot()
    x = np.geomspace(0.002, 1, 200)
    for contestant, found in hits.groupby("contestant", sort=False):
        spent = np.sort(found["evaluations"] / found["budget"])
        _line(axes, x, np.searchsorted(spent, x, side="right") / len(spent), str(contestant), shown)
    axes.set(xscale="log", xlabel="evaluations ÷ budget", xlim=(x[0], 1))
    axes.set_ylabel(f"share of {len(TARGETS)} targets × problems × seeds reached")
    axes.grid(alpha=0.25)
    _legend(figure, shown, list(dict.fromkeys(trials["contestant"])))
    return _png(figure)


def profiles(trials: pd.DataFrame, shown: Sequence[str] = ()) -> bytes:
    """Plots performance profiles at one target (:func:`zoopt.bench.targets.profile`), as a PNG."""
    shown = tuple(shown) or tuple(summary(trials)["contestant"][:SHOWN])
    figure = _figure(7.6, 5.2)
    axes = figure.add_subplot()
    x = np.geomspace(1, 100, 200)
    for contestant, ratios in profile(trials).items():
        y = np.searchsorted(ratios, x, side="right") / max(1, len(ratios))
        _line(axes, x, y, contestant, shown)
    axes.set(xscale="log", xlabel="evaluations ÷ those of the fastest", xlim=(1, x[-1]))
    axes.set_ylabel(f"share of problems × seeds with {1 - PROFILE:.0%} of the gap closed")
    axes.grid(alpha=0.25)
    _legend(figure, shown, list(dict.fromkeys(trials["contestant"])))
    return _png(figure)


def style(contestant: str, shown: Sequence[str]) -> dict[str, Any]:
    """The line style of a contestant, the same in all plots of a study."""
    if contestant not in shown:
        return {"color": "#BBBBBB", "linestyle": "-", "linewidth": 0.7, "zorder": 1}
    number = list(shown).index(contestant)
    kind = STYLES[number // len(COLORS) % len(STYLES)]
    color = COLORS[number % len(COLORS)]
    return {"color": color, "linestyle": kind, "linewidth": 1.7, "zorder": 2, "label": contestant}


def _curve(axes: Any, found: Sequence[Any], contestant: str, shown: Sequence[str]) -> None:
    at = np.unique([evaluations for curve in found for evaluations, _ in curve if evaluations])
    if not len(at):
        return
    seen = []
    for curve in found:
        x, y = np.array(curve, dtype=float).T
        y = np.nan_to_num(y, nan=_FAR, posinf=_FAR)
        seen.append(y[np.searchsorted(x, at, side="right") - 1])
    low, middle, high = np.quantile(np.array(seen), [0.25, 0.5, 0.75], axis=0)
    _line(axes, at, middle, contestant, shown)
    if contestant in shown:
        color = style(contestant, shown)["color"]
        axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)


def _limit(axes: Any, found: pd.DataFrame) -> None:
    """Makes the axis logarithmic if scores span decades, and cuts off diverging ones."""
    start = max(curve[0][1] for curve in found["curve"] if curve)
    best = found["score"].min()
    low, high = axes.get_ylim()
    if 0 < best < start / DECADES:
        axes.set_yscale("log")
        axes.set_ylim(max(low, best / 2, start * 1e-12), min(high, start * 3))
    else:
        axes.set_ylim(low, min(high, start + 0.2 * abs(start - best)))


def _line(axes: Any, x: Any, y: Any, contestant: str, shown: Sequence[str]) -> None:
    axes.plot(x, y, **style(contestant, shown))


def _legend(figure: Figure, shown: Sequence[str], contestants: Sequence[str]) -> None:
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    ordered = {name: handles[name] for name in shown if name in handles}
    others = len(set(contestants) - set(shown))
    if others:
        (ordered[f"{others} others"],) = figure.axes[-1].plot([], [], **style("", shown))
    columns = 4 if figure.get_figwidth() > 9 else 3
    figure.legend(
        ordered.values(),
        ordered,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def _wrapped(title: str, width: int = 46) -> str:
    head, comma, tail = title.rpartition(", ")
    return f"{head},\n{tail}" if comma and len(title) > width else title


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
