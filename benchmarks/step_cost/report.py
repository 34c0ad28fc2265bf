"""A run's tables as Markdown, and its picture."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.step_cost import batched, forwards, kernel, small, steps, targets
from benchmarks.step_cost.methods import (
    CHAINED,
    CHAINED_GAUSSIAN,
    FLOOR,
    FROM_REPOSITORY,
    PUBLISHED,
    TORCHZERO,
)
from benchmarks.step_cost.results import Results

TO_FLOOR = f"÷ {FLOOR}"
OURS = (CHAINED, CHAINED_GAUSSIAN)
SHOWN = (FLOOR, *OURS, PUBLISHED, *FROM_REPOSITORY, *TORCHZERO)


def tables(found: Results) -> dict[str, str]:
    """Markdown by the name of its block on a page."""
    return {
        "targets": pages.markdown(targets.table(found), {"found": ".2f"}),
        "step-cost": steps_of(found, steps.HEADLINE) + "\n" + _overview(found),
        "small": _small(found),
        "kernel": _kernel(found),
        "forwards": _forwards(found),
        "batched": probes_of(found, batched.PROBES_OF),
    }


def _spread(rows, name):
    """The quartiles of a column, as text."""
    low, high = rows[f"{name}_q1"], rows[f"{name}_q3"]
    return [f"{a:.2f} to {b:.2f}" if a == a else None for a, b in zip(low, high, strict=True)]


def steps_of(found: Results, case: str) -> str:
    """A case of steps in full."""
    rows = found.of([case]).rows
    table = pd.DataFrame(
        {
            "step": rows["method"],
            "s": rows["seconds"],
            "forward, s": rows["forward"],
            "passes, s": rows["passes"],
            TO_FLOOR: rows["ratio"],
            "quartiles": _spread(rows, "ratio"),
            "published ÷ this": [found.ratio(case, PUBLISHED, method) for method in rows["method"]],
            "peak, MB": rows["peak_mb"],
            "why not": rows["reason"],
        }
    )
    seconds = dict.fromkeys(("s", "forward, s", "passes, s"), ".3f")
    return pages.markdown(
        table.dropna(axis="columns", how="all"),
        seconds | {TO_FLOOR: ".2f", "published ÷ this": ".2f", "peak, MB": ",.0f"},
    )


def summary(found: Results) -> str:
    """The headline case for somebody who comes by: zoopt's steps in a run, and others' steps."""
    rows = found.of([steps.HEADLINE]).rows
    rows = rows[rows["method"].isin(SHOWN)]
    whose = rows["method"].where(~rows["method"].isin(OURS), "zoopt, " + rows["method"])
    table = pd.DataFrame({"step": whose, "seconds": rows["seconds"], TO_FLOOR: rows["ratio"]})
    return pages.markdown(table, {"seconds": ".2f", TO_FLOOR: ".2f"})


def _overview(found):
    """The ratio of each configuration to two forwards, in every case."""
    return _by_case(found, steps.STEPS, "ratio", 1.0, TO_FLOOR)


def _small(found):
    """Milliseconds of each configuration's step, in every case of a small model."""
    return _by_case(found, small.SMALL, "seconds", 1e3, "step, ms")


def _by_case(found, cases, column, scale, heading):
    """A column of all configurations that have it, in every case."""
    rows = found.of(cases).rows
    names = [name for name in cases if name in set(rows["case"])]
    values = rows.pivot(index="method", columns="case", values=column).astype(float) * scale
    order = [method for method in dict.fromkeys(rows["method"]) if values.loc[method].notna().any()]
    table = values.loc[order, names].reset_index(names=heading)
    return pages.markdown(table, dict.fromkeys(names, ".2f"))


def _kernel(found):
    rows = found.of(kernel.KERNEL).rows
    names = {"case": "θ", "method": "operation", "ratio": f"÷ {kernel.FLOOR}"}
    return _ratios(rows, names, "ms", 1e3, ".1f")


def _forwards(found):
    rows = found.of(forwards.FORWARDS).rows
    return _ratios(rows, {"case": "what", "method": "how", "ratio": "÷ first"}, "s", 1.0, ".2f")


def _ratios(rows, names, unit, scale, form):
    """Times and ratios with their quartiles, a configuration a row."""
    table = pd.DataFrame(
        {
            names["case"]: rows["case"],
            names["method"]: rows["method"],
            unit: rows["seconds"] * scale,
            names["ratio"]: rows["ratio"],
            "quartiles": _spread(rows, "ratio"),
        }
    )
    return pages.markdown(table, {unit: form, names["ratio"]: ".2f"})


def probes_of(found: Results, cases: Mapping[str, int]) -> str:
    """Probes together beside as many rows, and beside one row after the other.

    Args:
        found: what was measured.
        cases: K of each case.
    """
    lines = []
    for case, k in cases.items():
        rows = found.of([case]).rows.set_index("method")
        if rows.empty:
            continue
        lines.append(
            {
                "objective": case,
                "one row, s": rows["seconds"][batched.ROW],
                "K rows, s": rows["seconds"][batched.ROWS],
                "K probes, s": rows["seconds"][batched.PROBES],
                "K probes ÷ K rows": rows["ratio"][batched.PROBES],
                "limit": rows["ratio"].get(batched.AGAIN),
                "whole step ÷ K rows": rows["ratio"][batched.STEP],
                "K × one row ÷ K probes": k * found.ratio(case, batched.ROW, batched.PROBES),
                "why not": rows["reason"][batched.PROBES],
            }
        )
    return pages.markdown(pd.DataFrame(lines).dropna(axis="columns", how="all"))


def picture(found: Results, path: Path) -> None:
    """The headline case: the objective and the passes of each step, in units of two forwards."""
    rows = found.of([steps.HEADLINE]).rows.dropna(subset="seconds")
    rows = rows.sort_values("ratio", ascending=False)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    # Medians of seconds and of ratios are of different rounds: the bar is as long as its number.
    forward = rows["ratio"] * rows["forward"] / (rows["forward"] + rows["passes"])
    passes = rows["ratio"] - forward
    axes.barh(rows["method"], forward, color="#4878a8", label="within the objective")
    axes.barh(rows["method"], passes, left=forward, color="#e0853c", label="passes over θ")
    for place, ratio in enumerate(rows["ratio"]):
        axes.text(ratio + 0.04, place, f"{ratio:.2f}", va="center")
    axes.margins(x=0.1)
    axes.axvline(1, color="0.3", linewidth=0.8, linestyle=":")
    axes.set_xlabel(f"time of a step {TO_FLOOR}")
    axes.set_title(steps.HEADLINE, loc="left")
    axes.legend(loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=144)
