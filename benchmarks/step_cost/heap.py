"""What keeping freed memory is worth; see README.md. `python -m benchmarks.step_cost.heap`.

How glibc's heap comes to lie differs from process to process, so each sample is a process of its
own, and the two kinds take turns.
"""

import argparse
import json
import resource
import statistics
import time
from functools import partial
from pathlib import Path

import pandas as pd

import zoopt
from benchmarks import machine, pages
from benchmarks.step_cost import batched, steps
from benchmarks.step_cost.case import Case
from benchmarks.step_cost.methods import CHAINED, FLOOR
from zoopt.bench.processes import Died, forked

HERE = Path(__file__).parent
FILE = HERE / "results" / "heap.json"
PAGE = HERE.parents[1] / "docs" / "performance.md"
REPEATS = 2


def _part(case: Case, *names: str) -> Case:
    return case._replace(methods={name: case.methods[name] for name in names})


CASES = {
    steps.HEADLINE: _part(steps.STEPS[steps.HEADLINE], FLOOR, CHAINED),
    batched.prefill(32): _part(batched.BATCHED[batched.prefill(32)], batched.ROWS, batched.PROBES),
}


def sample(case: Case, keep: bool) -> list[dict[str, object]]:
    """Medians of seconds and page faults of a case's steps, in this process, a row a method."""
    if keep and not zoopt.keep_freed_memory():
        raise RuntimeError(
            "freed memory cannot be kept here: it takes glibc, and an environment without "
            "GLIBC_TUNABLES, MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_"
        )
    model, objective = case.build()
    visits = {name: make(model, objective) for name, make in case.methods.items()}
    found = {name: [] for name in visits}
    for number in range(1 + REPEATS):
        for name, visit in visits.items():
            with visit() as step:
                faults, started = _faults(), time.perf_counter()
                step()
                seconds, faults = time.perf_counter() - started, _faults() - faults
            if number > 0:  # the first compiles
                found[name].append((seconds, faults))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    rows = []
    for name, pairs in found.items():
        seconds, faults = (statistics.median(each) for each in zip(*pairs, strict=True))
        rows.append({"method": name, "seconds": seconds, "faults": faults, "peak_mb": peak})
    return rows


def _faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measured(cases: dict[str, Case], rounds: int, threads: int) -> pd.DataFrame:
    """All samples: case, kept, round, and what :func:`sample` finds."""
    plan = [
        {"case": case, "kept": kept, "round": number}
        for number in range(rounds)
        for case in cases
        for kept in ((False, True) if number % 2 else (True, False))
    ]
    tasks = [partial(sample, cases[each["case"]], each["kept"]) for each in plan]
    rows = []
    for number, answer in forked(tasks, threads=threads):
        if isinstance(answer, Died):
            print(f"{plan[number]}: {answer}", flush=True)
            continue
        rows += [plan[number] | row for row in answer]
        print(f"{len(rows)} {plan[number]} {answer}", flush=True)
    return pd.DataFrame(rows)


def table(samples: pd.DataFrame) -> str:
    """A step a row: medians with and without, and the ratio of seconds within a round."""
    rows = []
    for (case, method), of in samples.groupby(["case", "method"], sort=False):
        row = {"what": f"{case}: {method}"}
        for value, name in (("seconds", "s"), ("faults", "page faults"), ("peak_mb", "peak, MB")):
            medians = of.groupby("kept")[value].median()
            row[name], row[f"{name}, kept"] = medians[False], medians[True]
        by_round = of.pivot(index="round", columns="kept", values="seconds")
        ratio = by_round[True] / by_round[False]
        row["s, kept ÷ not"] = ratio.median()
        row["range"] = f"{ratio.min():.2f} to {ratio.max():.2f}"
        rows.append(row)
    whole = dict.fromkeys(("page faults", "peak, MB"), ",.0f")
    formats = {"s": ".3f", **whole}
    kept = {f"{name}, kept": form for name, form in formats.items()}
    return pages.markdown(pd.DataFrame(rows), formats | kept | {"s, kept ÷ not": ".2f"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="pairs of processes (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (%(default)s)")
    chosen = parser.parse_args()
    samples = measured(CASES, chosen.rounds, chosen.threads)
    facts = machine.facts() | {"threads": chosen.threads}
    data = {"machine": facts, "samples": samples.to_dict("records")}
    FILE.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    text = table(samples)
    pages.replace(PAGE, "heap", text)
    print(text)


if __name__ == "__main__":
    main()
