"""Which template, parameters and learning rate teach the demo most in its few minutes?

`python -m benchmarks.settings.run [templates] [tuning]` writes results/templates.md and tuning.md.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

import zoopt
from benchmarks import models, pages
from benchmarks.models import examples
from zoopt.probes.surroundings import evaluation_mode
from zoopt.tasks import TaskObjective
from zoopt.tuning.report.calibration import class_offsets

HERE = Path(__file__).parent
BEST = ("Review: {text}\nSentiment:", " negative", " positive")

TEMPLATES = [
    ("{text} It was", " terrible", " great"),
    ("{text} It was", " bad", " good"),
    ("{text} The movie was", " terrible", " great"),
    ("{text}\nOverall, this movie is", " bad", " good"),
    ("{text}\nSentiment:", " negative", " positive"),
    BEST,
    ("Review: {text}\nSentiment (positive or negative):", " negative", " positive"),
    ("Is this movie review positive or negative?\n{text}\nAnswer:", " negative", " positive"),
]

ALL = ()
NORMS = ("*norm.weight",)
UPPER = ("model.layers.2?.*norm.weight", "model.norm.weight")
TUNING = [
    {"parameters": "all", "params": ALL, "eps": 1e-3, "lr": 1.6e-5},
    {"parameters": "norms", "params": NORMS, "eps": 1e-2, "lr": 4e-4},
    {"parameters": "norms of the upper third", "params": UPPER, "eps": 3e-2, "lr": 1.7e-3},
    {"parameters": "norms of the upper third", "params": UPPER, "eps": 3e-2, "lr": 5e-3},
    {"parameters": "norms of the upper third", "params": UPPER, "eps": 3e-2, "lr": 1.5e-2},
]


def task_of(tokenizer, choice, dev):
    template, negative, positive = choice
    return zoopt.Verbalizer(
        examples("train"),
        dev,
        tokenizer=tokenizer,
        template=template,
        verbalizer={"negative": negative, "positive": positive},
    )


def templates():
    model, tokenizer = models.smollm2()
    rows = []
    for choice in TEMPLATES:
        task = task_of(tokenizer, choice, [])
        sample = task.train[:300]
        with evaluation_mode(model):
            scores = task.predict(model, sample)
        truth = task.references(sample)
        offsets = class_offsets(scores, truth)
        rows.append(
            {
                "template": repr(choice[0]),
                "words": f"{choice[1].strip()}, {choice[2].strip()}",
                "zero-shot": (scores.argmax(1) == truth).mean(),
                "calibrated": ((scores + offsets).argmax(1) == truth).mean(),
            }
        )
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def tuning(steps):
    dev = examples("dev")
    accuracy = zoopt.get_objective("accuracy")
    rows = []
    for choice in TUNING:
        model, tokenizer = models.smollm2()
        task = task_of(tokenizer, BEST, dev)
        options = {name: value for name, value in choice.items() if name != "parameters"}
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            result = zoopt.tune(
                model,
                task=task,
                objective="cross_entropy",
                steps=steps,
                eval_every=steps,
                run_dir=folder,
                quiet=True,
                **options,
            )
        seconds = time.perf_counter() - started
        with evaluation_mode(model):
            found = TaskObjective(task, accuracy).value(model, dev)
        rows.append(
            {
                "parameters": choice["parameters"],
                "eps": choice["eps"],
                "lr": choice["lr"],
                "steps": steps,
                "dev cross-entropy": result.best_score,
                "dev accuracy": found,
                "minutes": seconds / 60,
            }
        )
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def write(name, table):
    (HERE / "results" / f"{name}.md").write_text(pages.markdown(table), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", nargs="*", default=["templates", "tuning"])
    parser.add_argument("--steps", type=int, default=60)
    chosen = parser.parse_args()
    if "templates" in chosen.rounds:
        write("templates", templates())
    if "tuning" in chosen.rounds:
        write("tuning", tuning(chosen.steps))


if __name__ == "__main__":
    main()
