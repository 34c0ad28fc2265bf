"""What a step costs beside two forwards; see README.md. `python -m benchmarks.step_cost.run`."""

import argparse
import os
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

import torch

import zoopt
from benchmarks import machine, pages
from benchmarks.step_cost import report
from benchmarks.step_cost.batched import BATCHED, prefill
from benchmarks.step_cost.forwards import FORWARDS
from benchmarks.step_cost.kernel import KERNEL, ONE_TENSOR
from benchmarks.step_cost.methods import COMPARED
from benchmarks.step_cost.results import Results, kept
from benchmarks.step_cost.small import SMALL
from benchmarks.step_cost.steps import HEADLINE, STEPS

HERE = Path(__file__).parent
FILE = HERE / "results" / "step_cost.json"
PAGE = HERE.parents[1] / "docs" / "performance.md"
README = HERE.parents[1] / "README.md"
CASES = STEPS | SMALL | KERNEL | FORWARDS | BATCHED
QUICK = {
    HEADLINE: STEPS[HEADLINE]._replace(methods=COMPARED),
    ONE_TENSOR: KERNEL[ONE_TENSOR],
    prefill(32): BATCHED[prefill(32)],
}


def show(found):
    """Prints the tables, and gives them."""
    tables = report.tables(found)
    print("\n".join(tables.values()))
    return tables


def write(found, folder):
    """The results as data, tables and a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    found.write(folder / FILE.name, machine.facts())
    found.rows.to_csv(folder / "step_cost.csv", index=False, float_format="%.6g")
    text = "\n".join(f"## {name}\n\n{table}" for name, table in report.tables(found).items())
    (folder / "step_cost.md").write_text(text, encoding="utf-8")
    report.picture(found, folder / "step_cost.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--quick", action="store_true", help="a few cases, two rounds, no files")
    some.add_argument(
        "--only",
        default="*",
        metavar="PATTERN",
        help="cases to measure anew; results keep the rest",
    )
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (%(default)s)")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    zoopt.keep_freed_memory()
    if chosen.quick:
        show(Results.measured(QUICK, rounds=2))
        return
    anew = {name: case for name, case in CASES.items() if fnmatchcase(name, chosen.only)}
    if not anew:
        parser.error(f"no case is like {chosen.only!r}. There are: {'; '.join(CASES)}")
    if some_kept := len(anew) < len(CASES):
        try:
            before = kept(FILE, machine.facts())
        except ValueError as error:
            parser.error(str(error))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # so that compiling is timed, not loading
        found = Results.measured(anew)
    if some_kept:
        found = before.renewed(CASES, found)
    write(found, HERE / "results")
    for name, table in show(found).items():
        pages.replace(PAGE, name, table)
    pages.replace(README, "speed", report.summary(found))


if __name__ == "__main__":
    main()
