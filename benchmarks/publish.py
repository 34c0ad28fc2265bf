"""Writes the tables of docs/benchmarks.md from committed results: `-m benchmarks.publish`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import pages
from benchmarks.auto import run as auto
from benchmarks.finetune import report as finetune
from zoopt.bench import report, rows, standings, targets

HERE = Path(__file__).parent
FUNCTIONS = HERE / "functions" / "results"
FINETUNE = HERE / "finetune" / "results"
PAGE = HERE.parent / "docs" / "benchmarks.md"
OURS = ("spsa", "nspsa", "mezo", "onesided")
REFERENCE = "adamw"
SHOWN = (
    "spsa/rademacher",
    "nspsa:8/rademacher",
    "mezo",
    "onesided/rademacher",
    "nevergrad:OnePlusOne",
    "evotorch:SNES",
    "pycma-diagonal",
)
"""Who is drawn in colour."""


def ours(contestant):
    """Whether a contestant is zoopt's."""
    return contestant.partition("/")[0].partition(":")[0] in OURS


def against(table, trials):
    """The best of zoopt and the best of the others on each problem, and by how much.

    A ratio is of what is left of the way to the best known score of the problem where that is its
    optimum, 0; accuracies are compared by their difference.
    """
    made = []
    higher = trials.groupby("problem")["higher_is_better"].any()
    for problem, found in table.groupby("problem", sort=False):
        without = found[found["contestant"] != REFERENCE]
        own = without["contestant"].map(ours)
        mine, theirs = without[own].iloc[0], without[~own].iloc[0]
        ahead = mine if without.iloc[0]["contestant"] == mine["contestant"] else theirs
        behind = theirs if ahead is mine else mine
        low, high = ("q3", "q1") if not higher[problem] else ("q1", "q3")
        apart = (ahead[low] < behind[high]) if not higher[problem] else ahead[low] > behind[high]
        by = (
            f"{100 * (ahead['median'] - behind['median']):.1f} points"
            if higher[problem]
            else f"{behind['median'] / ahead['median']:.3g} ×"
        )
        reference = found[found["contestant"] == REFERENCE]["median"]
        row = {"problem": problem, "zoopt's best": mine["contestant"], "median": mine["median"]}
        row |= {"others' best": theirs["contestant"], "their median": theirs["median"]}
        row |= {"ahead": "zoopt" if ahead is mine else "others", "by": by}
        row |= {"quartiles apart": "yes" if apart else "no"}
        made.append({**row, "AdamW": reference.iloc[0] if len(reference) else np.nan})
    return pd.DataFrame(made)


def edges(table):
    """How many settings were chosen at an end of their range, and whose."""
    at = table[table["edge"] != ""]
    worst = at.groupby("contestant").size().sort_values(ascending=False)
    names = ", ".join(f"{name} ({count})" for name, count in worst.items())
    tuned = table[~table["contestant"].isin(["nevergrad:SPSA"])]
    return f"{len(at)} of {len(tuned)} chosen settings stand at an end of what was tried: {names}."


def names(table):
    """What names of libraries resolved to, where that is another."""
    rows = []
    for contestant, found in table.groupby("contestant", sort=False):
        known = contestant.partition(":")[2]
        resolved = sorted({name for name in found["algorithm"] if ">" in name})
        if resolved and resolved != [known]:
            rows.append({"name": contestant, "what ran": "; ".join(resolved)})
    return pd.DataFrame(rows)


def details(table):
    """All standings, a table a problem."""
    parts = []
    for problem, found in table.groupby("problem", sort=False):
        columns = ["contestant", "setting", "edge", "ended early", "q1", "median", "q3"]
        parts.append(f"**{problem}**\n\n{pages.markdown(found[columns])}")
    return "\n".join(parts)


def ranks():
    """Progress a step times r + 2 against r and d."""
    found = pd.read_csv(FUNCTIONS / "rank.csv")
    cell = [f"{r.rate:.2f} ({r.low:.2f} to {r.high:.2f})" for r in found.itertuples()]
    table = found.assign(cell=cell, d=[f"{d:,}" for d in found["d"]])
    table = table.pivot(index="d", columns="r", values="cell")
    table = table.loc[sorted(table.index, key=lambda d: int(d.replace(",", "")))].fillna("")
    table.columns = [f"r = {r}" for r in table.columns]
    return pages.markdown(table.reset_index())


def costs():
    """Time in draws of d normal numbers, and memory in multiples of θ, at the larger d."""
    found = pd.read_csv(FUNCTIONS / "cost.csv")
    rows = []
    for method, chosen in found.groupby("method", sort=False):
        at = chosen.set_index("d")
        row = {"method": method}
        for d in (10**3, 10**5, 10**7):
            value = at["draws"].get(d, np.nan)
            row[f"draws, d = {d:,}"] = f"{value:.2g}" if np.isfinite(value) else ""
        for d in (10**5, 10**7):
            value = at["mb"].get(d, np.nan) / (4 * d / 1e6)
            row[f"memory ÷ θ, d = {d:,}"] = f"{value:.1f}" if np.isfinite(value) else ""
        reasons = [reason for reason in at["reason"].dropna() if reason]
        rows.append({**row, "why not": "; ".join(dict.fromkeys(reasons))})
    return pages.markdown(pd.DataFrame(rows))


def bbob():
    """The share of targets reached on COCO's functions at the end of the budget."""
    found = pd.read_csv(HERE / "bbob" / "results" / "bbob.csv")
    found["column"] = found["suite"] + ", d = " + found["d"].astype(str)
    order = list(dict.fromkeys(found.sort_values(["suite", "d"])["column"]))
    table = found.pivot(index="search", columns="column", values="targets at its end")[order]
    table = table.loc[table.mean(axis=1).sort_values(ascending=False).index]
    return pages.markdown(table.reset_index(), dict.fromkeys(order, ".2f"))


def tables():
    """Each marked block of the page as Markdown."""
    trials = rows(FUNCTIONS / "trials.jsonl")
    table = standings(trials)
    taught = rows(FINETUNE / "trials.jsonl")
    facts = json.loads((FUNCTIONS / "facts.json").read_text(encoding="utf-8"))
    return {
        "facts": f"Committed results are of {facts['versions']}.\n",
        "against": pages.markdown(against(table, trials)),
        "summary": pages.markdown(targets.summary(trials), report.FORMATS),
        "edges": edges(table) + "\n",
        "names": pages.markdown(names(table)),
        "details": details(table),
        "rank": ranks(),
        "cost": costs(),
        "bbob": bbob(),
        "finetune": pages.markdown(*finetune.accuracies(taught)),
        "finetune-costs": pages.markdown(*finetune.costs(taught)),
        "auto": auto.shown(),
    }


if __name__ == "__main__":
    for block, text in tables().items():
        pages.replace(PAGE, block, text)
