"""What a run found: the samples, and a row for each configuration of each case."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from benchmarks.step_cost.case import NOTES, Case, measure
from benchmarks.step_cost.rounds import SUMMARY, no_samples, reason


class Results(NamedTuple):
    """Tables with the columns of :func:`measure` and ``case`` before them."""

    samples: pd.DataFrame
    rows: pd.DataFrame

    @classmethod
    def measured(cls, cases: Mapping[str, Case], rounds: int | None = None) -> Self:
        """All cases one after the other; a case that cannot be built is a row with its reason."""
        samples, rows = {}, {}
        for name, case in cases.items():
            try:
                samples[name], rows[name] = measure(case, rounds)
            except Exception as error:
                samples[name], rows[name] = no_samples(), _failed(case, error)
            print(f"{name}\n{rows[name].to_string()}\n", flush=True)
        return cls(*(pd.concat(t, names=["case"]).reset_index("case") for t in (samples, rows)))

    def write(self, file: Path, facts: Mapping[str, object]) -> None:
        """As JSON, with what it was measured on."""
        tables = {"rows": self.rows, "samples": self.samples}
        data = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        text = json.dumps({"machine": dict(facts), **data}, indent=1) + "\n"
        file.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Self:
        """What :meth:`write` wrote."""
        data = json.loads(file.read_text(encoding="utf-8"))
        return cls(*(pd.DataFrame(data[name]).fillna(np.nan) for name in cls._fields))

    def renewed(self, cases: Iterable[str], newer: Self) -> Self:
        """The cases in this order, of the newer results where they have them."""
        order = {case: place for place, case in enumerate(cases)}
        kept = self.of(order.keys() - set(newer.rows["case"]))
        tables = map(pd.concat, zip(kept, newer, strict=True))
        by_case = {"by": "case", "key": lambda names: names.map(order), "kind": "stable"}
        return Results(*(table.sort_values(**by_case, ignore_index=True) for table in tables))

    def of(self, cases: Iterable[str]) -> Self:
        """The part that is of these cases."""
        return Results(*(table[table["case"].isin(cases)] for table in self))

    def ratio(self, case: str, of: str, to: str) -> float:
        """Seconds of one configuration ÷ another's of the same round, the median over rounds.

        NaN where either was not measured, as below.
        """
        samples = self.of([case]).samples
        seconds = samples.pivot(index="round", columns="method", values="seconds")
        seconds = seconds.reindex(columns=list({of, to})).astype(float)
        return float((seconds[of] / seconds[to]).median())

    def peak_ratio(self, case: str, of: str, to: str) -> float:
        """Peak memory of one configuration ÷ another's."""
        peaks = self.of([case]).rows.set_index("method")["peak_mb"].reindex(list({of, to}))
        return float(peaks[of] / peaks[to])


def machine_of(file: Path) -> dict[str, object]:
    """What a file of results was measured on."""
    return json.loads(file.read_text(encoding="utf-8"))["machine"]


def kept(file: Path, facts: Mapping[str, object]) -> Results:
    """What a file has, for some of its cases to be measured anew.

    Raises:
        ValueError: it was measured on another machine.
    """
    where = machine_of(file)
    if where != facts:
        raise ValueError(f"{file} is of another machine, {where}: measure all cases anew")
    return Results.read(file)


def _failed(case, error):
    rows = {"method": list(case.methods), "reason": reason(error)}
    return pd.DataFrame(rows, columns=["method", *SUMMARY, *NOTES])
