"""What is wanted of the ratios, beside what a run found."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from benchmarks.step_cost import batched, kernel, steps
from benchmarks.step_cost.methods import (
    CHAINED,
    CHAINED_GAUSSIAN,
    FLOOR,
    PUBLISHED,
    REPOSITORY,
    THREE_PASS,
)
from benchmarks.step_cost.results import Results


class Target(NamedTuple):
    """A ratio that is to be at most ("≤") or at least ("≥") so much."""

    what: str
    sense: str
    limit: float
    found: Callable[[Results], float]


def seconds_target(of, to, sense, limit, case=steps.HEADLINE):
    """The seconds of one configuration ÷ another's in a case."""
    return Target(f"{of} ÷ {to}; {case}", sense, limit, lambda found: found.ratio(case, of, to))


def _generation_gain(found):
    """Tokens a second of 32 probes together ÷ those of one model alone."""
    return 32 * found.ratio(batched.generation(32), batched.ROW, batched.PROBES)


TARGETS = [
    seconds_target(CHAINED, FLOOR, "≤", 1.15),
    seconds_target(THREE_PASS, FLOOR, "≤", 1.20),
    seconds_target(CHAINED_GAUSSIAN, FLOOR, "≤", 1.35),
    seconds_target("overlay, Rademacher", FLOOR, "≤", 1.35, steps.PREFILL),
    seconds_target(PUBLISHED, CHAINED_GAUSSIAN, "≥", 3),
    seconds_target(PUBLISHED, CHAINED, "≥", 3),
    seconds_target(REPOSITORY, CHAINED_GAUSSIAN, "≥", 3),
    seconds_target(REPOSITORY, CHAINED, "≥", 3),
    seconds_target("Rademacher pass", kernel.FLOOR, "≤", 1.0, kernel.ONE_TENSOR),
    seconds_target(batched.PROBES, batched.ROWS, "≤", 1.15, batched.prefill(32)),
    Target(
        f"tokens/s of K probes ÷ of one model; {batched.generation(32)}", "≥", 6, _generation_gain
    ),
    Target(
        f"peak memory of {THREE_PASS} ÷ {FLOOR}; {steps.HEADLINE}",
        "≤",
        1.03,
        lambda found: found.peak_ratio(steps.HEADLINE, THREE_PASS, FLOOR),
    ),
]


def table(found: Results, wanted: Sequence[Target] = TARGETS) -> pd.DataFrame:
    """One row a target, without a verdict where the run did not measure it."""
    rows = []
    for target in wanted:
        value = target.found(found)
        holds = value <= target.limit if target.sense == "≤" else value >= target.limit
        verdict = "not measured" if pd.isna(value) else "yes" if holds else "no"
        rows.append((target.what, f"{target.sense} {target.limit:g}", value, verdict))
    return pd.DataFrame(rows, columns=["ratio", "target", "found", "holds"])
