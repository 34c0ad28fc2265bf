"""Language models at matched budgets; see README.md.

`python -m benchmarks.finetune.run [rows...]` goes on with results/trials.jsonl and writes the table
and the plot beside it. Rows are names or patterns, as `icl-4` or `'mezo*'`.
"""

import argparse
import fnmatch
import json
import math
import tempfile
from functools import partial
from pathlib import Path

import zoopt
from benchmarks import machine
from benchmarks.finetune import report
from benchmarks.finetune.questions import FULL, QUESTIONS, TOY
from benchmarks.finetune.trials import trial
from benchmarks.finetune.tuned import TUNED
from benchmarks.finetune.untuned import UNTUNED
from zoopt.bench.processes import Died, forked
from zoopt.bench.ranges import beyond
from zoopt.bench.results import TUNING_SEED, cost, done, mend

RESULTS = Path(__file__).parent / "results"

WIDENED = 2
"""Rates that are tried beyond a row's own, as long as the best so far is the last at its end."""

ROWS = (*UNTUNED, *TUNED)
KEY = ("problem", "contestant", "setting", "seed", "budget")


def setting_of(rate):
    """A rate as the file has it."""
    return json.dumps({} if rate is None else {"rate": rate})


def search(scale, question, names, found):
    """The trials by which rates are chosen: (row, question, rate, seed)."""
    for name in names:
        for rate in rates(scale, question, name, found) if name in TUNED else ():
            yield name, question, rate, TUNING_SEED


def rates(scale, question, name, found):
    """A row's rates, and one beyond the end where the best of those stands, ``WIDENED`` times."""
    made, order = TUNED[name].rates, _order(scale, question, name, found)
    for _ in range(WIDENED):
        if any(_key(scale, name, question, rate, TUNING_SEED) not in found for rate in made):
            break
        tried = [{"rate": rate} for rate in made]
        further = beyond({"rate": min(made, key=order)}, tried)
        made = tuple(sorted(setting["rate"] for setting in (*tried, *further)))
    return made


def counted(scale, question, names, found):
    """The trials that count, of rows that have been searched."""
    for name in names:
        if name in UNTUNED:
            rate, seeds = None, min(scale.seeds, UNTUNED[name].seeds)
        else:
            rate, seeds = best_rate(scale, question, name, found), scale.seeds
        for seed in range(seeds):
            yield name, question, rate, seed


def best_rate(scale, question, name, found):
    """The rate with the best accuracy on the development sentences, of equals the lower loss."""
    return min(rates(scale, question, name, found), key=_order(scale, question, name, found))


def _order(scale, question, name, found):
    def order(rate):
        row = found[_key(scale, name, question, rate, TUNING_SEED)]
        return cost(row), (row["dev"] or {}).get("cross_entropy", math.inf)

    return order


def run(scale, names, questions, file, workers):
    """Runs what is missing of rows and questions: the search of each question, then what counts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mend(file)
    for question in questions:
        for _ in range(1 + WIDENED):
            _missing(scale, list(search(scale, question, names, done(file))), file, workers)
        _missing(scale, list(counted(scale, question, names, done(file))), file, workers)


def _missing(scale, plan, file, workers):
    known = done(file)
    todo = [each for each in plan if _key(scale, *each) not in known]
    tasks = [partial(trial, scale, *each) for each in todo]
    for count, (number, answer) in enumerate(forked(tasks, workers), 1):
        key = dict(zip(KEY, _key(scale, *todo[number]), strict=True))
        row = key | (_dead(answer) if isinstance(answer, Died) else answer)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({**row, "higher_is_better": True}) + "\n")
        shown = " ".join(map(str, todo[number]))
        print(
            f"{count}/{len(todo)} {shown}: {row['score']:.3f}, {row['seconds']:.0f} s", flush=True
        )


def _key(scale, name, question, rate, seed):
    """What the file knows a trial by."""
    return question, name, setting_of(rate), seed, scale.budget


def _dead(died):
    """What is known of a trial whose process ended without an answer."""
    unknown = dict.fromkeys(("score", "forwards", "seconds", "peak_mb"), math.nan)
    return {**unknown, "test": None, "dev": None, "curve": [], "algorithm": "", "stop": str(died)}


def named(patterns):
    """The rows that names and patterns mean, in the table's order.

    Raises:
        ValueError: one of them means none.
    """
    for pattern in patterns:
        if not fnmatch.filter(ROWS, pattern):
            raise ValueError(f"no row is called {pattern!r}. There are: {', '.join(ROWS)}")
    return [name for name in ROWS if any(fnmatch.fnmatchcase(name, each) for each in patterns)]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", default=["*"], help=f"of {', '.join(ROWS)}")
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS), choices=list(QUESTIONS))
    parser.add_argument("--smoke", action="store_true", help="toy size, nothing kept")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time (%(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        names = named(chosen.rows)
    except ValueError as error:
        parser.error(str(error))
    zoopt.keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if chosen.smoke else RESULTS
        file = folder / "trials.jsonl"
        scale = TOY if chosen.smoke else FULL
        run(scale, names, chosen.questions, file, chosen.workers)
        print(report.write(file))
        facts = json.dumps(machine.facts(), indent=1)
        (folder / "machine.json").write_text(facts + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
