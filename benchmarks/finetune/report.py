"""The table, in the layout of the MeZO paper's, and the plot of scores against forward passes."""

import io

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.finetune.questions import QUESTIONS
from benchmarks.finetune.tuned import TUNED
from benchmarks.finetune.untuned import UNTUNED
from zoopt.bench.plots import COLORS
from zoopt.bench.results import rows

ROWS = UNTUNED | TUNED
PARTS = {
    "": "all weights",
    "norms": "norms of the upper third",
    "lora": "LoRA, or a subspace of it",
    "prompt": "subspace of a soft prompt",
}
LABELS = {
    "adamw": "AdamW",
    "mezo": "MeZO",
    "mezo-accuracy": "MeZO on accuracy",
    "nevergrad": "nevergrad NGOpt",
    "pycma": "pycma CMA-ES",
}


def write(file):
    """Writes finetune.md and finetune.png beside the trials; returns the table."""
    trials = rows(file)
    text = table(trials)
    (file.parent / "finetune.md").write_text(text, encoding="utf-8")
    (file.parent / "finetune.png").write_bytes(plot(trials))
    return text


def table(trials):
    """Two tables: test accuracies by method and question, and what they took."""
    return "\n".join(pages.markdown(*each) for each in (accuracies(trials), costs(trials)))


def accuracies(trials):
    """A method a row, a question a column: percent, with the standard deviation over seeds.

    Questions that were not asked yet have no column.
    """
    made = []
    for name, found in _by_row(trials):
        row = {"method": ROWS[name].title}
        for question, of in found.groupby("problem"):
            percent = 100 * of["score"].astype(float)
            spread = f" ({percent.std(ddof=1):.1f})" if len(percent) > 1 else ""
            row[QUESTIONS[question].title] = f"{percent.mean():.1f}{spread}"
        made.append(row)
    titles = [each.title for each in QUESTIONS.values()]
    return (pd.DataFrame(made).reindex(columns=["method", *titles]).dropna(axis=1, how="all"),)


def costs(trials):
    """What was chosen, and medians of what it took, for each question."""
    made = []
    for name, found in _by_row(trials):
        for question in QUESTIONS:
            of = found[found["problem"] == question]
            if of.empty:
                continue
            made.append(
                {
                    "method": ROWS[name].title,
                    "question": QUESTIONS[question].title,
                    "chosen": _chosen(of.iloc[0]),
                    "forwards": of["forwards"].median(),
                    "CPU seconds": of["seconds"].median(),
                    "MB": of["peak_mb"].median(),
                    "ms a sentence": np.median([test["ms"] for test in of["test"] if test]),
                    "ended early": ", ".join(sorted({s for s in of["stop"] if s != "budget"})),
                }
            )
    formats = {"forwards": ",.0f", "CPU seconds": ",.1f", "MB": ",.0f", "ms a sentence": ".1f"}
    return pd.DataFrame(made), formats


def _chosen(row):
    """The setting and the algorithm behind a name, and whether the rate is the end of its range."""
    rate = row["setting"].strip("{}").replace('"', "").replace("rate: ", "")
    return ", ".join(filter(None, (rate, row["algorithm"], row["edge"])))


def _by_row(trials):
    for name in ROWS:
        found = trials[trials["contestant"] == name]
        if len(found):
            yield name, found


def plot(trials):
    """Mean development accuracy against forward passes, with the range over seeds, as a PNG.

    Questions are above one another, what is tuned is side by side.
    """
    questions = [name for name in QUESTIONS if (trials["problem"] == name).any()]
    figure = Figure(figsize=(12.6, 3.2 * len(questions) + 1.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(questions), len(PARTS), sharey="row", sharex=True, squeeze=False)
    for line, question in zip(panels, questions, strict=True):
        line[0].set_ylabel(f"{QUESTIONS[question].title}\naccuracy on development sentences")
        for axes, part in zip(line, PARTS, strict=True):
            axes.grid(alpha=0.25)
            for name, found in _by_row(trials[trials["problem"] == question]):
                if name in UNTUNED or style(name)[0] == part:
                    _draw(axes, name, [curve for curve in found["curve"] if curve])
    for axes, title in zip(panels[0], PARTS.values(), strict=True):
        axes.set_title(title, loc="left", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("forward passes (backward: 2)")
    handles = {}
    for axes in panels.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def style(name):
    """The panel that a row that tunes is in, and its line's label."""
    family, _, rest = name.partition("-")
    part = rest.removesuffix("accuracy").strip("-")
    return part, LABELS[f"{family}-accuracy" if rest.endswith("accuracy") else family]


def _draw(axes, name, curves):
    """A line with its range over seeds; of a row that tunes nothing, where its passes end."""
    if not curves:
        return
    if name in UNTUNED:
        x, y = np.mean([curve[-1] for curve in curves], axis=0)
        marker = "osD^v"[list(UNTUNED).index(name)]
        axes.plot(x, y, marker, color="black", mfc="white", ms=6, label=ROWS[name].title)
        return
    longest = max(curves, key=len)
    at = [forwards for forwards, _ in longest]
    seen = np.array([[y for _, y in curve] for curve in curves if len(curve) == len(longest)])
    _, label = style(name)
    color = COLORS[list(LABELS.values()).index(label)]
    axes.plot(at, seen.mean(0), color=color, marker=".", lw=1.7, label=label)
    axes.fill_between(at, seen.min(0), seen.max(0), color=color, alpha=0.15, linewidth=0)
