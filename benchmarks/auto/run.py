"""Rates that a run finds itself against a grid; see README.md.

`python -m benchmarks.auto.run [lora] [norms]` goes on with results/trials.jsonl and writes auto.md.
"""

import argparse
import itertools
import json
import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

import zoopt
from benchmarks import models, pages
from benchmarks.models import examples
from zoopt.probes.surroundings import evaluation_mode
from zoopt.tasks import TaskObjective
from zoopt.tuning.folder.metrics_file import Metrics

RESULTS = Path(__file__).parent / "results"
TRIALS, TESTS = RESULTS / "trials.jsonl", RESULTS / "tests.jsonl"
RUNS = models.CACHE / "auto"
GRID = tuple(itertools.product((3e-3, 1e-2, 3e-2), (1e-3, 4e-3, 1.6e-2, 6.4e-2)))
AUTO, UNTUNED = ("auto", "auto"), ("none", "none")
SEEDS = 3
FRESH = tuple(range(3, 9))
"""Seeds that the choice among the grid's points does not see."""
STEPS, BATCH, DEV = 80, 16, 150
NORMS = ("model.layers.2?.*norm.weight", "model.norm.weight")


def lora():
    """SmolLM2 in bf16 with adapters of rank 8 in fp32."""
    model, tokenizer = models.smollm2(torch.bfloat16)
    torch.manual_seed(0)
    return models.with_lora(model), tokenizer, ()


def norms():
    """SmolLM2 in bf16, of which the norms of the upper third are tuned."""
    return (*models.smollm2(torch.bfloat16), NORMS)


PARTS = {"lora": lora, "norms": norms}


def task_of(tokenizer, dev):
    """The demo's task."""
    return zoopt.Verbalizer(
        examples("train"),
        dev,
        tokenizer=tokenizer,
        template="Review: {text}\nSentiment:",
        verbalizer={"negative": " negative", "positive": " positive"},
    )


def trial(part, eps, lr, seed, folder, steps=STEPS, dev=DEV):
    """One run, as its line of trials.jsonl. What is left of one without a line is of other code."""
    shutil.rmtree(folder, ignore_errors=True)
    model, tokenizer, params = PARTS[part]()
    started = time.perf_counter()
    result = zoopt.tune(
        model,
        task=task_of(tokenizer, examples("dev")[:dev]),
        objective="cross_entropy",
        eps=eps,
        lr=lr,
        params=params,
        seed=seed,
        steps=steps,
        batch_size=BATCH,
        eval_every=steps,
        run_dir=folder,
        quiet=True,
    )
    if "interrupted" in result.stop:
        raise KeyboardInterrupt
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    found = next((entry["auto"] for entry in entries if "auto" in entry), {})
    return {
        "part": part,
        "eps": eps,
        "lr": lr,
        "seed": seed,
        "dev": result.best_score,
        "forwards": max(entry.get("forwards", 0) for entry in entries),
        "rollbacks": sum("rollback" in entry for entry in entries),
        "found_eps": found.get("eps"),
        "found_lr": found.get("lr"),
        "seconds": time.perf_counter() - started,
    }


def ended(folder):
    """Whether a folder has a run that came to its end."""
    path = folder / "metrics.jsonl"
    stop = Metrics(path, STEPS).last("stop") if path.exists() else None
    return stop is not None and "interrupted" not in stop


def folder_of(part, eps, lr, seed):
    return RUNS / f"{part}-{eps}-{lr}-{seed}"


def tested(part, eps, lr, seed):
    """Cross-entropy on the test sentences after a run, or untuned, as its line of tests.jsonl."""
    model, tokenizer, _ = PARTS[part]()
    task, dev = task_of(tokenizer, []), None
    if (eps, lr) != UNTUNED:
        folder = folder_of(part, eps, lr, seed)
        if not ended(folder):  # the cache was cleared: another run, which stands for the first
            keep(TRIALS, trial(part, eps, lr, seed, folder))
        zoopt.replay(model, folder, step="best")
        evaluations = Metrics(folder / "metrics.jsonl", STEPS).evaluations
        dev = min(evaluations.values())
    objective = TaskObjective(task, zoopt.get_objective("cross_entropy"))
    with evaluation_mode(model):
        loss = objective.value(model, examples("test"))
    return {"part": part, "eps": eps, "lr": lr, "seed": seed, "loss": loss, "dev": dev}


def lines(path):
    """The lines of a file of results, by what was run."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row["part"], row["eps"], row["lr"], row["seed"]): row for row in rows}


def keep(path, row):
    print(row, flush=True)
    RESULTS.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def run(part, points, seeds):
    """Runs what is missing of a part at some points."""
    for seed, point in itertools.product(seeds, points):
        if (part, *point, seed) not in lines(TRIALS):
            keep(TRIALS, trial(part, *point, seed, folder_of(part, *point, seed)))


def chosen(part):
    """The two points that are compared."""
    return AUTO, best_of_grid(part)


def test(part, seeds):
    """Asks the test sentences about the untuned model, what was found, and the grid's best."""
    compared = [(*point, seed) for seed in seeds for point in chosen(part)]
    for key in ((*UNTUNED, 0), *compared):
        if (part, *key) not in lines(TESTS):
            keep(TESTS, tested(part, *key))


def best_of_grid(part):
    """The point that is best on the development sentences, on average over the seeds."""
    done = lines(TRIALS)
    return min(GRID, key=lambda point: sum(done[part, *point, s]["dev"] for s in range(SEEDS)))


def complete(part):
    """The seeds of which all is there that the part's rows of the table are made of."""
    trials, tests = lines(TRIALS), lines(TESTS)
    seeds = range(SEEDS)
    if not all((part, *point, seed) in trials for point in (AUTO, *GRID) for seed in seeds):
        return []
    return [
        seed
        for seed in (*seeds, *FRESH)
        if all((part, *point, seed) in tests for point in chosen(part))
    ]


def table():
    """For each part and each seed that is complete: the best point of the grid, and what was found.

    "luckiest" is the best of the 12 on the development sentences with that very seed. Means are of
    the seeds that the grid's point was chosen on, and of those that the choice did not see.
    """
    rows = [_row(part, seed) for part in PARTS for seed in complete(part)]
    made = pd.DataFrame(rows)
    if made.empty:
        return made
    fresh = made["seed"].isin(FRESH)
    means = made.groupby(["parameters", fresh], sort=False).mean(numeric_only=True)
    means = means.drop(columns=["auto's eps", "auto's lr", "seed"]).reset_index()
    means["seed"] = means["seed"].map({False: "mean", True: "mean of fresh"})
    both = pd.concat([made.astype({"seed": str}), means], ignore_index=True)[list(made)]
    share = (both["auto's gain"] / both["grid's gain"]).where(both["grid's gain"] > 0)
    both.insert(list(both).index("auto's gain") + 1, "share of the gain", share)
    return both.rename(columns={"forwards": "share of the forwards"})


def _row(part, seed):
    trials, tests = lines(TRIALS), lines(TESTS)
    best, untuned = best_of_grid(part), tests[part, *UNTUNED, 0]["loss"]
    grid = [trials[part, *point, seed] for point in GRID if (part, *point, seed) in trials]
    found = trials[part, *AUTO, seed]
    row = {
        "parameters": part,
        "seed": seed,
        "grid's eps": best[0],
        "grid's lr": best[1],
        "auto's eps": found["found_eps"],
        "auto's lr": found["found_lr"],
        "grid's gain": untuned - tests[part, *best, seed]["loss"],
        "auto's gain": untuned - tests[part, *AUTO, seed]["loss"],
        "grid's dev": tests[part, *best, seed]["dev"],
        "auto's dev": tests[part, *AUTO, seed]["dev"],
    }
    if len(grid) == len(GRID):
        row["luckiest dev"] = min(each["dev"] for each in grid)
        row["forwards"] = found["forwards"] / sum(each["forwards"] for each in grid)
    return row


_SCORES = ("grid's gain", "auto's gain", "grid's dev", "luckiest dev", "auto's dev")
_SHARES = ("share of the gain", "share of the forwards")
FORMATS = dict.fromkeys(_SCORES, ".3f") | dict.fromkeys(_SHARES, ".2f")


def shown():
    """The table as Markdown."""
    return pages.markdown(table(), FORMATS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--smoke", action="store_true", help="toy size, nothing written")
    asked = parser.parse_args()
    zoopt.keep_freed_memory()
    if asked.smoke:
        for part, (eps, lr) in itertools.product(asked.parts, (AUTO, GRID[0])):
            with tempfile.TemporaryDirectory() as folder:
                print(trial(part, eps, lr, 0, Path(folder) / "run", steps=2, dev=4))
        return
    for part in asked.parts:
        run(part, (AUTO, *GRID), range(SEEDS))
        run(part, chosen(part), FRESH)
        test(part, (*range(SEEDS), *FRESH))
        (RESULTS / "auto.md").write_text(shown(), encoding="utf-8")


if __name__ == "__main__":
    main()
