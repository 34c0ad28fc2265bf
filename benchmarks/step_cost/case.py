"""What a case is, and how it is measured: its configurations in turn, on one set of weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch

from benchmarks.allocation import bytes_of, peak_during
from benchmarks.step_cost.rounds import SUMMARY, Clock, Visit, alternate, reason, summary

NOTES = ["reason", "compile_seconds", "peak_mb"]


class Case(NamedTuple):
    """What is timed together.

    Attributes:
        build: makes the model, and its objective where the configurations need one.
        methods: name → maker of a visit from the two; the first is the floor of all ratios.
        rounds: how often each is timed.
        peaks: the methods of which the peak of allocated memory is measured as well.
        restored: whether θ is put back before each visit, which takes a copy of it.
    """

    build: Callable[[], tuple[torch.nn.Module, Callable[..., Any]]]
    methods: Mapping[str, Callable[[torch.nn.Module, Callable[..., Any]], Visit]]
    rounds: int
    peaks: tuple[str, ...] = ()
    restored: bool = True


def measure(case: Case, rounds: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The samples, and one row a configuration in the order of the case's methods.

    Where a copy of θ is held, no configuration sees another's θ.
    """
    clock = Clock()
    model, objective = case.build()
    parameters = list(model.parameters())
    kept = [(each, each.detach().clone()) for each in parameters if case.restored]

    @torch.no_grad()
    def reset():
        for parameter, value in kept:
            parameter.copy_(value)

    visits, notes = {}, {}
    for name, make in case.methods.items():
        try:
            visits[name] = make(model, objective and clock.timed(objective))
        except Exception as error:
            notes[name] = {"reason": reason(error)}
    samples, more = alternate(visits, rounds or case.rounds, clock, reset)
    notes |= more
    for name in case.peaks:
        if "reason" in notes[name]:
            continue
        reset()
        try:
            with visits[name]() as step:
                peak = bytes_of(parameters) + peak_during(step, parameters[0].device)
        except Exception as error:
            notes[name]["reason"] = f"its peak: {reason(error)}"
        else:
            notes[name]["peak_mb"] = peak / 1e6
    floor = next(iter(case.methods))
    rows = pd.DataFrame.from_dict(notes, orient="index").join(summary(samples, floor))
    rows = rows.reindex(list(case.methods), columns=[*SUMMARY, *NOTES])
    return samples, rows.rename_axis("method").reset_index()
