"""What a step costs on a GPU; see README.md. `python -m benchmarks.step_cost.gpu --sizes 1.3b 13b`.

Models have OPT's shapes and random weights in bf16, which are drawn where they stay.
"""

import argparse
import gc
from functools import partial
from pathlib import Path

import torch

from benchmarks import machine, models, pages
from benchmarks.step_cost import report, steps, targets
from benchmarks.step_cost.case import Case
from benchmarks.step_cost.methods import (
    CHAINED,
    CHAINED_GAUSSIAN,
    COMPARED,
    FLOOR,
    PUBLISHED,
    THREE_PASS,
)
from benchmarks.step_cost.results import Results

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "performance.md"
ROWS, TOKENS = 16, 256


def name_of(size):
    """The name of a size's case."""
    return f"OPT-{size.upper()}'s shape in bf16, {ROWS} × {TOKENS} tokens"


def _build(size, device):
    gc.collect()  # what is left of the model before
    with torch.device(device):
        model = models.opt(size, torch.bfloat16)
    return steps.random(model, ROWS, TOKENS)


def cases(sizes, device, rounds):
    """A case for each size. θ is not copied, so that what fits is as large as it can be."""
    shown = {"rounds": rounds, "peaks": (FLOOR, THREE_PASS), "restored": False}
    return {name_of(size): Case(partial(_build, size, device), COMPARED, **shown) for size in sizes}


_target = partial(targets.seconds_target, case=name_of("1.3b"))
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
        asked.append(f"{case}:\n\n{report.steps_of(found, case)}")
    return "\n".join(asked)


def text_of(found, facts):
    """What the page has."""
    return f"{facts['gpu']}, torch {facts['torch']}.\n\n{tables(found)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["1.3b", "13b"], choices=models.OPT_SHAPES)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here; python -m benchmarks.step_cost.run needs none")
    facts = machine.facts() | {"gpu": torch.cuda.get_device_name()}
    asked = cases(chosen.sizes, "cuda", chosen.rounds)
    found = None
    for name, case in asked.items():  # what a size has taken is kept, whatever befalls the next
        measured = Results.measured({name: case})
        found = measured if found is None else found.renewed(asked, measured)
        found.write(HERE / "results" / "gpu.json", facts)
        pages.replace(PAGE, "gpu", text_of(found, facts))
    print(text_of(found, facts))


if __name__ == "__main__":
    main()
