"""Results on pages: a table as Markdown, and the marked place of a document that shows it."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def markdown(table: pd.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """The table's columns as Markdown, numbers on the right, what is missing left empty.

    ``formats`` has a format specification for columns of numbers, such as ``",.0f"``; ``".4g"`` is
    used for the others. A table without rows is no text.
    """
    if table.empty:
        return ""
    numeric = {name: pd.api.types.is_numeric_dtype(table[name]) for name in table}
    formats = {name: ".4g" for name in table if numeric[name]} | dict(formats or {})

    def cell(name, value):
        if pd.isna(value):
            return ""
        return format(value, formats.get(name, "")).replace("|", "\\|")

    rows = [[cell(name, row[name]) for name in table] for _, row in table.iterrows()]
    rule = ["---:" if numeric[name] else "---" for name in table]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(table), rule, *rows]) + "\n"


def replace(page: Path, name: str, text: str) -> None:
    """Puts the text between ``<!-- name -->`` and ``<!-- /name -->``, which stand there once."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    new, found = marked.subn(lambda m: m[1] + text.rstrip("\n") + "\n" + m[2], old)
    if found != 1:
        raise ValueError(f"{page} has {found} blocks between <!-- {name} --> and <!-- /{name} -->")
    page.write_text(new, encoding="utf-8")
