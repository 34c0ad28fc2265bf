"""Rates that a run finds itself against a grid; see README.md.

`python -m benchmarks.auto.run [lora] [norms]` goes on with results/trials.jsonl and writes auto.md.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import pandas as pd
import peft
import torch

import zoopt
from benchmarks import models, pages
from benchmarks.models import examples
from zoopt.probing import evaluation_mode
from zoopt.tasks import TaskObjective

RESULTS = Path(__file__).parent / "results"
TRIALS = RESULTS / "trials.jsonl"
GRID = tuple(itertools.product((3e-3, 1e-2, 3e-2), (1e-3, 4e-3, 1.6e-2, 6.4e-2)))
SEEDS = 3
STEPS, BATCH = 80, 16
DEV, TEST = 150, 300
NORMS = ("model.layers.2?.*norm.weight", "model.norm.weight")


def lora():
    """SmolLM2 in bf16 with adapters of rank 8 in fp32."""
    model, tokenizer = models.smollm2(torch.bfloat16)
    torch.manual_seed(0)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    return peft.get_peft_model(model, config), tokenizer, ()


def norms():
    """SmolLM2 in bf16, of which the norms of the upper third are tuned."""
    return (*models.smollm2(torch.bfloat16), NORMS)


PARTS = {"lora": lora, "norms": norms}


def trial(part, eps, lr, seed, smoke):
    """One run, as its line of trials.jsonl."""
    model, tokenizer, params = PARTS[part]()
    steps, dev, test = (2, 4, 4) if smoke else (STEPS, DEV, TEST)
    task = zoopt.Verbalizer(
        examples("train"),
        examples("dev")[:dev],
        tokenizer=tokenizer,
        template="Review: {text}\nSentiment:",
        verbalizer={"negative": " negative", "positive": " positive"},
    )
    held_out = TaskObjective(task, zoopt.get_objective("cross_entropy"))
    held = examples("test")[:test]
    with evaluation_mode(model):
        before = held_out.value(model, held)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = zoopt.tune(
            model,
            task=task,
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
        lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        found = next((entry["auto"] for entry in entries if "auto" in entry), {})
    seconds = time.perf_counter() - started
    with evaluation_mode(model):
        after = held_out.value(model, held)
    return {
        "part": part,
        "eps": eps,
        "lr": lr,
        "seed": seed,
        "dev": result.best_score,
        "gain": before - after,
        "forwards": max(entry.get("forwards", 0) for entry in entries),
        "rollbacks": sum("rollback" in entry for entry in entries),
        "found_eps": found.get("eps"),
        "found_lr": found.get("lr"),
        "seconds": seconds,
    }


def done():
    """The lines there are, by what was run."""
    if not TRIALS.exists():
        return {}
    rows = [json.loads(line) for line in TRIALS.read_text(encoding="utf-8").splitlines()]
    return {(row["part"], row["eps"], row["lr"], row["seed"]): row for row in rows}


def run(parts, smoke):
    """Runs what is missing."""
    for part in parts:
        points = (("auto", "auto"), *(GRID[:1] if smoke else GRID))
        for seed, (eps, lr) in itertools.product(range(1 if smoke else SEEDS), points):
            if smoke:
                print(trial(part, eps, lr, seed, smoke))
            elif (part, eps, lr, seed) not in done():
                row = trial(part, eps, lr, seed, smoke)
                print(row, flush=True)
                RESULTS.mkdir(exist_ok=True)
                with TRIALS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


def table(trials):
    """For each part and seed: the best of the grid, and what was found."""
    rows = []
    for (part, seed), group in trials.groupby(["part", "seed"]):
        auto = group[group["eps"] == "auto"]
        grid = group[group["eps"] != "auto"]
        if len(auto) != 1 or len(grid) != len(GRID):
            continue
        best, found = grid.loc[grid["dev"].idxmin()], auto.iloc[0]
        rows.append(
            {
                "parameters": part,
                "seed": seed,
                "grid's eps": best["eps"],
                "grid's lr": best["lr"],
                "grid's gain": best["gain"],
                "auto's eps": found["found_eps"],
                "auto's lr": found["found_lr"],
                "auto's gain": found["gain"],
                "share of the gain": found["gain"] / best["gain"],
                "share of the forwards": found["forwards"] / grid["forwards"].sum(),
            }
        )
    made = pd.DataFrame(rows)
    if made.empty:
        return made
    numbers = ["grid's gain", "auto's gain", "share of the forwards"]
    means = made.groupby("parameters")[numbers].mean()
    means["share of the gain"] = means["auto's gain"] / means["grid's gain"]
    means = means.reset_index().assign(seed="all")
    return pd.concat([made.astype({"seed": str}), means], ignore_index=True)[list(made)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--smoke", action="store_true", help="toy size, nothing written")
    chosen = parser.parse_args()
    run(chosen.parts, chosen.smoke)
    if not chosen.smoke:
        text = pages.markdown(table(pd.DataFrame(done().values())))
        (RESULTS / "auto.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
