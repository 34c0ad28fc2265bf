"""How much memory a step takes beside a forward pass; see README.md.

`python -m benchmarks.memory.run` measures, and writes results/, the README's table and the page;
with --only some methods anew, with --render nothing but the tables.
"""

import argparse
import json
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks import batches, machine, models, pages
from benchmarks.allocation import bytes_of, peak_during
from benchmarks.memory import compiling, extrapolation
from benchmarks.memory.methods import METHODS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results" / "memory.json"
PAGE = ROOT / "docs" / "performance.md"
FORWARD = next(iter(METHODS))


def _smollm2():
    model, tokenizer = models.smollm2()
    return model, batches.sentences(tokenizer)


def _random(load):
    model = load()
    return model, batches.random_tokens(model, 16, 48)


DEMO = "SmolLM2-135M"
MODELS = {
    "stories15M": partial(_random, lambda: models.stories15m()[0]),
    "OPT-125M's shape": partial(_random, partial(models.opt, "125m")),
    DEMO: _smollm2,
    "OPT-1.3B's shape": partial(_random, partial(models.opt, "1.3b")),
}

# Malladi et al. 2023, arXiv 2305.17333, table 22: GB on GPUs, one example of MultiRC, 400 tokens.
PAPER = pd.DataFrame(
    {
        "OPT": ["1.3B", "2.7B", "6.7B", "13B", "30B", "66B"],
        "zero-shot and MeZO": [4, 7, 14, 26, 58, 128],
        "prefix tuning": [19, 29, 46, 158, 315, None],
        "full fine-tuning": [27, 55, 156, 316, 633, None],
    }
)


def measure(model_name, method_name):
    """Bytes of weights, the method's state, and the peak of a step on top, after a first step."""
    model, batch = MODELS[model_name]()
    step, state = METHODS[method_name](model, batch)
    step()
    return bytes_of(model.parameters()) + bytes_of(state()) + peak_during(step)


def _bounded():
    """What the machine cannot hold is to fail there, before the system ends some process."""
    limit = int(0.9 * machine.memory())
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def apart(model_name, method_name):
    """The same in a process of its own, whose memory ends with it; or why there is no number."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context, initializer=_bounded) as pool:
            return {"bytes": pool.submit(measure, model_name, method_name).result()}
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {error}".splitlines()[0]}


def measured(names, methods=tuple(METHODS)):
    """One row for each method on each model."""
    rows = []
    for model in names:
        for method in methods:
            rows.append({"model": model, "method": method, **apart(model, method)})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows).reindex(columns=["model", "method", "bytes", "reason"])


def renewed(rows, anew):
    """All rows in the order of models and methods, those that were measured anew in their place."""
    order = pd.MultiIndex.from_product([MODELS, METHODS], names=["model", "method"])
    both = pd.concat([rows, anew]).drop_duplicates(["model", "method"], keep="last")
    both = both.set_index(["model", "method"])
    return both.reindex(order.intersection(both.index, sort=False)).reset_index()


def of_one(rows):
    """The README's table: a model's megabytes."""
    size = rows.set_index("method")["bytes"]
    table = pd.DataFrame({"MB": size / 1e6, "÷ forward alone": size / size[FORWARD]})
    return pages.markdown(table.reset_index(names="what"), {"MB": ",.0f", "÷ forward alone": ".3f"})


def of_all(rows):
    """A row a model: its forward pass alone, and the ratios of the methods to it."""
    size = rows.pivot(index="model", columns="method", values="bytes").astype(float)
    size = size.loc[list(dict.fromkeys(rows["model"])), list(METHODS)]
    table = size.div(size[FORWARD], axis="index").drop(columns=FORWARD)
    table.insert(0, f"{FORWARD}, MB", size[FORWARD] / 1e6)
    formats = dict.fromkeys(table, ".2f") | {f"{FORWARD}, MB": ",.0f"}
    return pages.markdown(table.reset_index(), formats)


def papers():
    """The published table, with its ratio."""
    ratio = PAPER["full fine-tuning"] / PAPER["zero-shot and MeZO"]
    return pages.markdown(PAPER.assign(ratio=ratio), {"ratio": ".1f"})


def tables(rows, compiled):
    """The blocks of docs/performance.md, by name."""
    missing = rows.dropna(subset="reason").drop(columns="bytes")
    found = [of_all(rows), *([pages.markdown(missing)] if len(missing) else [])]
    return {
        "memory": "\n".join(found),
        "memory-compiling": compiling.table(compiled),
        "memory-extrapolated": extrapolation.table(rows),
        "memory-paper": papers(),
    }


def publish(rows, compiled):
    """Writes results/memory.md, the README's table and the page's."""
    made = tables(rows, compiled)
    (HERE / "results" / "memory.md").write_text("\n".join(made.values()), encoding="utf-8")
    pages.replace(ROOT / "README.md", "memory", of_one(rows[rows["model"] == DEMO]))
    for block, text in made.items():
        pages.replace(PAGE, block, text)


def committed():
    """The measurement that is in results/: its rows, and what compiling took."""
    held = json.loads(RESULTS.read_text(encoding="utf-8"))
    return pd.DataFrame(held["rows"]), pd.DataFrame(held["compiling"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; all without any")
    parser.add_argument(
        "--only",
        default="*",
        metavar="PATTERN",
        help="methods to measure anew; results keep the rest",
    )
    parser.add_argument("--render", action="store_true", help="measure nothing, write the tables")
    chosen = parser.parse_args()
    unknown = set(chosen.models) - set(MODELS)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    if chosen.render:
        publish(*committed())
        return
    methods = [method for method in METHODS if fnmatchcase(method, chosen.only)]
    if not methods:
        parser.error(f"no method is like {chosen.only!r}. There are: {'; '.join(METHODS)}")
    rows = measured(chosen.models or MODELS, methods)
    if chosen.models:
        print(pages.markdown(rows))
        return
    if len(methods) < len(METHODS):
        rows = renewed(committed()[0], rows)
    print(of_all(rows))
    compiled = pd.DataFrame(compiling.measured())
    tables_of = {"rows": rows, "compiling": compiled}
    data = {name: json.loads(table.to_json(orient="records")) for name, table in tables_of.items()}
    RESULTS.write_text(json.dumps({"machine": machine.facts(), **data}, indent=1) + "\n")
    publish(rows, compiled)


if __name__ == "__main__":
    main()
