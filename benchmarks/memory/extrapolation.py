"""What a model that no machine here holds would take: a line through what smaller ones took."""

import pandas as pd
import torch

from benchmarks import models, pages

MEASURED = {"OPT-125M's shape": "125m", "OPT-1.3B's shape": "1.3b"}
"""Models of one family, measured with the same batch: a line through others would mean nothing."""
TARGET = "13b"


def parameters(size):
    """How many a model of OPT's shape has; none of them is made."""
    with torch.device("meta"):
        model = models.opt(size)
    return sum(parameter.numel() for parameter in model.parameters())


def line(sizes, taken):
    """(bytes, bytes a parameter) of the line through two models; through 0, if there is one."""
    if len(sizes) == 1:
        return 0.0, taken[0] / sizes[0]
    slope = (taken[-1] - taken[0]) / (sizes[-1] - sizes[0])
    return taken[0] - slope * sizes[0], slope


def extrapolated(rows, sizes, target):
    """A row for each method: the bytes that a model of ``target`` parameters would take.

    Args:
        rows: of the measurement: model, method and bytes.
        sizes: parameters of the models that are gone by, the smaller one first.
        target: parameters.
    """
    made = []
    for method, found in rows.dropna(subset="bytes").groupby("method", sort=False):
        taken = found.set_index("model")["bytes"]
        known = [model for model in sizes if model in taken]
        if not known:
            continue
        start, slope = line([sizes[model] for model in known], [taken[model] for model in known])
        row = {"method": method, "bytes a parameter": slope, "bytes": start + slope * target}
        made.append({**row, "from": " and ".join(known)})
    return pd.DataFrame(made)


def table(rows):
    """The extrapolated column for OPT-13B's shape, and what each of its numbers is made from."""
    sizes = {model: parameters(size) for model, size in MEASURED.items()}
    target = parameters(TARGET)
    found = extrapolated(rows, sizes, target)
    column = f"extrapolated, not measured: OPT-13B's shape ({target / 1e9:.2f} B parameters), GB"
    shown = found.assign(**{column: found["bytes"] / 1e9})
    shown = shown[["method", column, "bytes a parameter", "from"]]
    return pages.markdown(shown, {column: ",.0f", "bytes a parameter": ".2f"})
