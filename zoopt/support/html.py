"""HTML pages from templates stored next to the code."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape


def rendered(package: str, **values: Any) -> str:
    """Renders a package's ``report.html.jinja``, escaping the values.

    Args:
        package: the package with the template, such as ``"zoopt.bench"``.
        **values: the template's variables.
    """
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
    )
    return environment.get_template("report.html.jinja").render(**values)
