"""Formats tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def markdown(table: pd.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """Formats a table as Markdown, with numbers right-aligned and missing values empty.

    ``formats`` has format specifications for numeric columns, such as ``",.0f"``; the default is
    ``".4g"``. A table without rows gives an empty string.
    """
    if table.empty:
        return ""
    heads, rows = cells(table, formats)
    rule = ["---:" if pd.api.types.is_numeric_dtype(table[name]) else "---" for name in table]
    lines = [heads, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def cells(
    table: pd.DataFrame, formats: Mapping[str, str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Formats the header and the rows as text; see :func:`markdown`."""
    numeric = [name for name in table if pd.api.types.is_numeric_dtype(table[name])]
    chosen = dict.fromkeys(numeric, ".4g") | dict(formats or {})

    def cell(name: str, value: Any) -> str:
        return "" if pd.isna(value) else format(value, chosen.get(name, ""))

    return list(table), [[cell(name, row[name]) for name in table] for _, row in table.iterrows()]
