"""What a step costs on a GPU; see README.md. `python -m benchmarks.step_cost.gpu --sizes 1.3b 13b`.

Models have OPT's shapes and random weights in bf16, which are drawn where they stay.
"""

import argparse
import gc
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import pandas as pd
import torch

import zoopt
from benchmarks import batches, machine, models, pages
from benchmarks.step_cost import batched, report, targets
from benchmarks.step_cost.case import Case
from benchmarks.step_cost.methods import (
    CHAINED,
    CHAINED_GAUSSIAN,
    COMPARED,
    COPY,
    FLOOR,
    GRAPHS,
    LIMIT,
    PUBLISHED,
    THREE_PASS,
)
from benchmarks.step_cost.results import Results, kept, machine_of

HERE = Path(__file__).parent
FILE = HERE / "results" / "gpu.json"
SLOWER = HERE / "results" / "gpu_slower_host.json"
"""Some of the cases on such a GPU whose host was slower when it was lent."""
PAGE = HERE.parents[1] / "docs" / "performance.md"
ROWS, TOKENS = 16, 256
SMALLEST, K = "1.3b", 32


def name_of(size, rows=ROWS, tokens=TOKENS):
    """The name of a size's case."""
    return f"OPT-{size.upper()}'s shape in bf16, {rows} × {tokens} tokens"


SHORT = name_of(SMALLEST, 1, 32)
LLAMA = f"Llama-3.2-1B's shape in bf16, {ROWS} × {TOKENS} tokens"


def _made(make, size, device):
    gc.collect()  # what is left of the model before
    with torch.device(device):
        return make(size, torch.bfloat16)


_model = partial(_made, models.opt)


def _step(make, size, device, rows=ROWS, tokens=TOKENS):
    """A model and its loss, which is recorded as a CUDA graph if it is asked to be."""
    model = _made(make, size, device)
    inputs, targets = batches.random_tokens(model, rows, tokens)

    def loss(ids, targets):
        return batches.last_token_loss(model, batches.Batch({"input_ids": ids}, targets))

    recorded = zoopt.CudaGraph(loss)

    @torch.no_grad()
    def value(as_graph=False):
        return (recorded if as_graph else loss)(inputs["input_ids"], targets)

    return model, value


def _prefill(size, device):
    return batched.prefill_of(_model(size, device))


def _generation(size, device):
    model = _model(size, device)
    return batched.generation_of(model, batches.random_tokens(model, 1, 32).inputs)


PROBES = {
    f"OPT-{SMALLEST.upper()}'s shape in bf16, {name(K)}": build
    for name, build in ((batched.prefill, _prefill), (batched.generation, _generation))
}


def cases(sizes, device, rounds):
    """A case for each size. θ is not copied, so that what fits is as large as it can be.

    With the smallest size there are one without biases, one of few tokens, CUDA graphs, and cases
    of many probes in one forward as well.
    """
    shown = {"rounds": rounds, "peaks": (FLOOR, THREE_PASS), "restored": False}
    more = COMPARED | LIMIT | COPY | GRAPHS
    made = {
        name_of(size): Case(
            partial(_step, models.opt, size, device),
            more if size == SMALLEST else COMPARED | LIMIT,
            **shown,
        )
        for size in sizes
    }
    if SMALLEST in sizes:
        made[SHORT] = Case(partial(_step, models.opt, SMALLEST, device, 1, 32), more, **shown)
        made[LLAMA] = Case(partial(_step, models.llama, "1b", device), more, **shown)
        methods = batched.methods(K)
        for name, build in PROBES.items():
            made[name] = Case(partial(build, SMALLEST, device), methods, rounds, restored=False)
    return made


_target = partial(targets.seconds_target, case=name_of(SMALLEST))
TARGETS = [
    _target(THREE_PASS, FLOOR, "≤", 1.08),
    _target(CHAINED, FLOOR, "≤", 1.05),
    _target(PUBLISHED, CHAINED, "≥", 1.5),
    _target(PUBLISHED, CHAINED_GAUSSIAN, "≥", 1.5),
]


def tables(found):
    """Markdown of the targets, and of each case."""
    asked = [pages.markdown(targets.table(found, TARGETS), {"found": ".2f"})]
    for case in found.rows["case"].unique():
        if case not in PROBES:
            asked.append(f"{case}:\n\n{report.steps_of(found, case)}")
    if not found.of(PROBES).rows.empty:
        asked.append(report.probes_of(found, dict.fromkeys(PROBES, K)))
    return "\n".join(asked)


def hosts(found, slower):
    """Markdown of the steps of both, beside each other."""
    rows, theirs = (each.rows.set_index(["case", "method"]) for each in (found, slower))
    common = theirs.index.intersection(rows.index)
    rows, theirs = rows.loc[common], theirs.loc[common]
    table = pd.DataFrame(
        {
            "case": common.get_level_values(0),
            "step": common.get_level_values(1),
            "s": rows["seconds"].array,
            "÷ first": rows["ratio"].array,
            "slower host, s": theirs["seconds"].array,
            "slower host, ÷ first": theirs["ratio"].array,
        }
    )
    formats = {"s": ".3f", "slower host, s": ".3f"}
    return pages.markdown(table, formats | {"÷ first": ".2f", "slower host, ÷ first": ".2f"})


def text_of(found, facts):
    """What the page has."""
    beside = hosts(found, Results.read(SLOWER))
    return f"{facts['gpu']}, torch {facts['torch']}.\n\n{tables(found)}\n{beside}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["1.3b", "13b"], choices=models.OPT_SHAPES)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument(
        "--only",
        default="*",
        metavar="PATTERN",
        help="cases to measure anew; results keep the rest",
    )
    parser.add_argument(
        "--show", action="store_true", help="only write the page from the results, without a GPU"
    )
    chosen = parser.parse_args()
    if chosen.show:
        pages.replace(PAGE, "gpu", text_of(Results.read(FILE), machine_of(FILE)))
        return
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here; python -m benchmarks.step_cost.run needs none")
    facts = machine.facts() | {"gpu": torch.cuda.get_device_name()}
    every = cases(models.OPT_SHAPES, "cuda", chosen.rounds)
    asked = {
        name: case
        for name, case in cases(chosen.sizes, "cuda", chosen.rounds).items()
        if fnmatchcase(name, chosen.only)
    }
    if not asked:
        parser.error(
            f"no case of these sizes is like {chosen.only!r}. There are: {'; '.join(every)}"
        )
    try:
        found = kept(FILE, facts) if chosen.only != "*" else None
    except ValueError as error:
        parser.error(str(error))
    for name, case in asked.items():  # what a size has taken is kept, whatever befalls the next
        measured = Results.measured({name: case})
        found = measured if found is None else found.renewed(every, measured)
        found.write(FILE, facts)
        pages.replace(PAGE, "gpu", text_of(found, facts))
    print(text_of(found, facts))


if __name__ == "__main__":
    main()
