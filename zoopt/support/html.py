"""HTML pages from templates that lie beside the code that fills them."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape


def rendered(package: str, **values: Any) -> str:
    """A package's ``report.html.jinja``, filled; what is filled in is escaped.

    Args:
        package: where the template lies, as ``"zoopt.bench"``.
        **values: what it names.
    """
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
    )
    return environment.get_template("report.html.jinja").render(**values)
