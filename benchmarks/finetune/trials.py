"""A trial: a row of the table on a question, with one setting and one seed, as a line of JSON."""

import time

import torch

from benchmarks.finetune.questions import QUESTIONS
from benchmarks.finetune.scoring import scores, with_memory
from benchmarks.finetune.tuned import MARKS, TUNED, Run
from benchmarks.finetune.untuned import UNTUNED
from zoopt.bench.results import TUNING_SEED

SEARCHED = 1 / 3
"""Share of the budget that each rate is tried for when the best is looked for."""

MEASURED = 2
"""Steps in which memory is measured: from the second on an optimizer has all of its state."""


def trial(scale, name, question, rate, seed):
    """The line of a trial; see README.md for its columns."""
    made = untuned if name in UNTUNED else tuned
    torch.manual_seed(seed)
    with torch.random.fork_rng():
        return made(scale, name, QUESTIONS[question], rate, seed)


def untuned(scale, name, question, _, seed):
    """Of a row that tunes nothing."""
    splits, row = scale.splits, UNTUNED[name]
    model, tokenizer = scale.load(torch.bfloat16)
    task = question.task(tokenizer, splits["train"], splits["dev"])
    drawn = torch.Generator().manual_seed(seed)
    started = time.process_time()
    prepared = row.prepare(model, tokenizer, question, splits, scale.budget, drawn)
    seconds = time.process_time() - started
    _, megabytes = with_memory(model, lambda: prepared.predict(splits["dev"][: task.batch_size]))
    dev = scores(task, prepared.predict, splits["dev"])
    test = scores(task, prepared.predict, splits["test"])
    return {
        "score": test["accuracy"],
        "test": test,
        "dev": dev,
        "curve": [[prepared.forwards, dev["accuracy"]]],
        "forwards": prepared.forwards,
        "seconds": seconds,
        "peak_mb": megabytes,
        "algorithm": prepared.setting,
        "stop": "budget",
    }


def tuned(scale, name, question, rate, seed):
    """Of a row that tunes weights: its test sentences are read if its setting has been chosen."""
    splits, row = scale.splits, TUNED[name]
    part, tokenizer = row.part(scale, question)
    task = question.task(tokenizer, splits["train"], splits["dev"])
    chosen = seed != TUNING_SEED
    budget = scale.budget if chosen else int(SEARCHED * scale.budget)
    run = Run(row, part, task, rate, budget, seed)
    curve = []

    def mark():
        curve.append([run.forwards, scores(task, run.predict, splits["dev"])["accuracy"]])

    def first():
        run.to(min(MEASURED * row.cost, budget))

    if chosen:
        mark()
    _, megabytes = with_memory(part.model, first)
    for share in MARKS if chosen else ():
        run.to(share * budget)
        mark()
    run.to(budget)
    dev = scores(task, run.predict, splits["dev"])
    test = scores(task, run.predict, splits["test"]) if chosen else None
    return {
        "score": (test or dev)["accuracy"],
        "test": test,
        "dev": dev,
        "curve": [*curve, [run.forwards, dev["accuracy"]]],
        "forwards": run.forwards,
        "seconds": run.seconds,
        "peak_mb": megabytes,
        "algorithm": run.steps.algorithm,
        "stop": run.stop or "budget",
    }
