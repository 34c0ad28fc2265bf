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
HUES = ("adamw", "mezo", "mezo on accuracy", "nevergrad", "pycma")
DASHES = {"all": "-", "norms": (0, (5, 2)), "lora": (0, (1, 1.2)), "prompt": (0, (4, 1.5, 1, 1.5))}


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
    """A method a row, a question a column: percent, with the standard deviation over seeds."""
    made = []
    for name, found in _by_row(trials):
        row = {"method": ROWS[name].title}
        for question, of in found.groupby("problem"):
            percent = 100 * of["score"].astype(float)
            spread = f" ({percent.std(ddof=1):.1f})" if len(percent) > 1 else ""
            row[QUESTIONS[question].title] = f"{percent.mean():.1f}{spread}"
        made.append(row)
    titles = [each.title for each in QUESTIONS.values()]
    return (pd.DataFrame(made).reindex(columns=["method", *titles]),)


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
                    "seconds": of["seconds"].median(),
                    "MB": of["peak_mb"].median(),
                    "ms a sentence": np.median([test["ms"] for test in of["test"] if test]),
                    "ended early": ", ".join(sorted({s for s in of["stop"] if s != "budget"})),
                }
            )
    formats = {"forwards": ",.0f", "seconds": ",.1f", "MB": ",.0f", "ms a sentence": ".1f"}
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
    """Mean development accuracy against forward passes, with the range over seeds, as a PNG."""
    questions = [name for name in QUESTIONS if (trials["problem"] == name).any()]
    figure = Figure(figsize=(5.6 * len(questions), 6.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, question in zip(np.ravel(figure.subplots(1, len(questions))), questions, strict=True):
        for name, found in _by_row(trials[trials["problem"] == question]):
            (_line if name in TUNED else _level)(axes, name, [c for c in found["curve"] if c])
        axes.set(xlabel="forward passes of 16 sentences (a backward pass is 2)")
        axes.set(ylabel="accuracy on development sentences")
        axes.set_title(QUESTIONS[question].title, loc="left")
        axes.grid(alpha=0.25)
    handles = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    ordered = {each.title: handles[each.title] for each in ROWS.values() if each.title in handles}
    figure.legend(
        ordered.values(),
        ordered,
        loc="outside lower center",
        ncols=len(questions) + 1,
        frameon=False,
        fontsize=8,
        handlelength=3.4,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _line(axes, name, curves):
    """A row that tunes: its mean, and its range over seeds."""
    if not curves:
        return
    color, dashes = style(name)
    at = [forwards for forwards, _ in max(curves, key=len)]
    seen = np.array([[y for _, y in curve] for curve in curves if len(curve) == len(at)])
    axes.plot(at, seen.mean(0), color=color, linestyle=dashes, lw=1.7, label=ROWS[name].title)
    axes.fill_between(at, seen.min(0), seen.max(0), color=color, alpha=0.12, linewidth=0)


def style(name):
    """The colour of a row's optimizer and objective, and the dashes of what is tuned."""
    family, _, rest = name.partition("-")
    hue = "mezo on accuracy" if rest.endswith("accuracy") else family
    return COLORS[HUES.index(hue)], DASHES[rest.removesuffix("accuracy").strip("-") or "all"]


def _level(axes, name, curves):
    """A row that tunes nothing: a mark where its forward passes end."""
    if not curves:
        return
    number = list(UNTUNED).index(name)
    x, y = np.mean([curve[-1] for curve in curves], axis=0)
    axes.plot(x, y, "osD^v"[number], color="black", mfc="white", ms=7, label=ROWS[name].title)
