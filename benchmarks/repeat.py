"""Runs committed trials of optimizers again, and says by how much they differ.

`python -m benchmarks.repeat` draws 20 of benchmarks/functions' trials that count, another `--seed`
draws others, and `--only mezo` those of a contestant. It writes nothing.
"""

import argparse
import functools
import json
import random
from pathlib import Path

import pandas as pd

from benchmarks import pages
from benchmarks.functions.run import CONTESTANTS
from zoopt.bench import contestant, trial
from zoopt.bench.problems import GROUPS
from zoopt.bench.processes import Died, forked
from zoopt.bench.results import counting, done

FILE = Path(__file__).parent / "functions" / "results" / "trials.jsonl"
FORMATS = {"committed": ".6g", "again": ".6g", "differs by": ".1e"}


def drawn(rows, count, seed, only=""):
    """Some of the trials that count."""
    counted = [row for row in counting(rows) if only in row["contestant"]]
    return random.Random(seed).sample(counted, min(count, len(counted)))


def again(rows, workers=1):
    """Each trial run once more, beside what the file has of it."""
    problems = {problem.name: problem for group in GROUPS.values() for problem in group()}
    who = {name: contestant(name) for name in CONTESTANTS}
    tasks = [
        functools.partial(
            trial.run,
            problems[row["problem"]],
            who[row["contestant"]],
            json.loads(row["setting"]),
            row["budget"],
            row["seed"],
        )
        for row in rows
    ]
    made = []
    for number, answer in forked(tasks, workers):
        row = rows[number]
        score = float("nan") if isinstance(answer, Died) else answer["score"]
        made.append(
            {
                "problem": row["problem"],
                "contestant": row["contestant"],
                "seed": row["seed"],
                "committed": row["score"],
                "again": score,
                "differs by": abs(score - row["score"]) / max(abs(row["score"]), 1e-300),
            }
        )
    return pd.DataFrame(made)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which (%(default)s)")
    parser.add_argument("--only", default="", help="part of a contestant's name")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time (%(default)s)")
    chosen = parser.parse_args()
    found = again(
        drawn(list(done(FILE).values()), chosen.count, chosen.seed, chosen.only), chosen.workers
    )
    print(pages.markdown(found, FORMATS))
    same = int((found["again"] == found["committed"]).sum())
    print(f"{same} of {len(found)} scores are the same to the last digit.")


if __name__ == "__main__":
    main()
