"""Optimizers on functions and small models at a matched budget; see README.md.

`python -m benchmarks.functions.run` goes on with results/trials.jsonl and writes tables and curves
beside it. `--smoke` runs everything at toy size and writes nothing.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import pages
from benchmarks.functions import plots
from benchmarks.functions.problems import PROBLEMS
from zoopt.bench import Study, contestant, standings

HERE = Path(__file__).parent
BUDGET, SEEDS, TUNING = 500, 3, 3
CONTESTANTS = (
    "spsa/rademacher",
    "nspsa:4/rademacher",
    "onesided/rademacher",
    "nevergrad:OnePlusOne",
    "nevergrad:DiagonalCMA",
    "nevergrad:NGOpt",
    "nevergrad:SPSA",
    "pycma-diagonal",
)
SHOWN = ["contestant", "algorithm", "setting", "q1", "median", "q3"]


def tables(trials):
    """A table for each problem, under its name."""
    made = standings(trials)
    texts = []
    for problem in dict.fromkeys(trials["problem"]):
        rows = made[made["problem"] == problem]
        texts.append(f"**{problem}**\n\n{pages.markdown(rows[SHOWN])}")
    return "\n".join(texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="toy size, nothing written")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time (%(default)s)")
    chosen = parser.parse_args()
    if chosen.smoke:
        with tempfile.TemporaryDirectory() as folder:
            who = [contestant(name, trials=2) for name in CONTESTANTS]
            study = Study(PROBLEMS, who, 20, 1, Path(folder) / "trials.jsonl")
            print(tables(study.run(chosen.workers)))
        return
    who = [contestant(name, trials=TUNING) for name in CONTESTANTS]
    trials = Study(PROBLEMS, who, BUDGET, SEEDS, HERE / "results" / "trials.jsonl").run(
        chosen.workers
    )
    plots.curves(trials, HERE / "results" / "curves.png")
    (HERE / "results" / "functions.md").write_text(tables(trials), encoding="utf-8")


if __name__ == "__main__":
    main()
