"""Writes the tables of docs/objectives.md from the registry: `python -m docs.publish`."""

from pathlib import Path

import pandas as pd

from benchmarks import pages
from zoopt.objectives import registry
from zoopt.objectives.conventions import CONVENTIONS
from zoopt.objectives.forms import FORMS
from zoopt.support.names import joined

PAGE = Path(__file__).with_name("objectives.md")


def tables() -> dict[str, str]:
    """Each marked block of the page as Markdown."""
    return {"conventions": conventions(), "needs": needs(), "objectives": objectives()}


def conventions() -> str:
    """How each convention calls a metric."""
    rows = [{"convention": name, "called as": c.called} for name, c in CONVENTIONS.items()]
    return pages.markdown(pd.DataFrame(rows))


def needs() -> str:
    """What metrics may take as predictions."""
    rows = [{"needs": f"`{name}`", "predictions": form.about} for name, form in FORMS.items()]
    return pages.markdown(pd.DataFrame(rows))


def objectives() -> str:
    """The built-in objectives."""
    rows = [
        {
            "name": f"`{joined(name, metric.arguments)}`",
            "better": "higher" if metric.higher_is_better else "lower",
            "range": "{:g} to {:g}".format(*metric.bounds).replace("inf", "∞"),
            "needs": metric.needs,
            "steps": "yes" if metric.piecewise_constant else "",
            "what it measures": metric.about,
        }
        for name, metric in registry.objectives().items()
        if metric.function.__module__.startswith("zoopt_objectives.")
    ]
    return pages.markdown(pd.DataFrame(rows))


if __name__ == "__main__":
    for block, text in tables().items():
        pages.replace(PAGE, block, text)
