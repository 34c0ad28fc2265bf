"""Optimizers on functions and small models at a matched budget; see README.md.

`python -m benchmarks.functions.run` goes on with results/trials.jsonl and draws its pictures beside
it. `--smoke` runs everything at toy size and keeps nothing.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.publish import REFERENCE, SHOWN
from zoopt.bench import Study, contestant, plots, report, rows
from zoopt.bench.problems import GROUPS

HERE = Path(__file__).parent
SEEDS = 5
BUDGET, BUDGET_LARGE, LARGE = 600, 200, 50_000
WIDENED = 2
"""Times that one setting further is tried where the best stands at an end of its range."""

CONTESTANTS = (
    "spsa/rademacher",
    "nspsa:8/rademacher",
    "mezo",
    "onesided/rademacher",
    "nevergrad:OnePlusOne",
    "nevergrad:DiagonalCMA",
    "nevergrad:CMA",
    "nevergrad:NGOpt",
    "nevergrad:TwoPointsDE",
    "nevergrad:PSO",
    "nevergrad:TBPSA",
    "nevergrad:RandomSearch",
    "nevergrad:SPSA",
    "nevergrad:SPSA-tuned",
    "pycma",
    "pycma-diagonal",
    "evotorch:PGPE",
    "evotorch:SNES",
    "evotorch:XNES",
    REFERENCE,
)


def studies(file, smoke=False):
    """A study for each problem, all in one file."""
    settings, seeds = (2, 1) if smoke else (None, SEEDS)
    who = [contestant(name, **({"trials": settings} if settings else {})) for name in CONTESTANTS]
    for group in GROUPS.values():
        for problem in group():
            budget = BUDGET_LARGE if problem.d >= LARGE else BUDGET
            yield Study([problem], who, 12 if smoke else budget, seeds, file, WIDENED)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="toy size, nothing written")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time (%(default)s)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if chosen.smoke else HERE / "results"
        for study in studies(folder / "trials.jsonl", chosen.smoke):
            study.run(chosen.workers, progress=lambda line: print(line, flush=True))
        write(folder)


def write(folder):
    """The pictures, and what the study was run with."""
    trials = rows(folder / "trials.jsonl")
    trials = trials[trials["contestant"] != REFERENCE]  # far below the rest, on many problems
    for draw in (plots.curves, plots.targets, plots.profiles):
        (folder / f"{draw.__name__}.png").write_bytes(draw(trials, SHOWN))
    facts = {**machine.facts(), "versions": report.versions()}
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
