"""Results on pages: a table as Markdown, and the marked place of a document that shows it."""

import re
from pathlib import Path

from zoopt.bench.tables import markdown

__all__ = ["markdown", "replace"]


def replace(page: Path, name: str, text: str) -> None:
    """Puts the text between ``<!-- name -->`` and ``<!-- /name -->``, which stand there once."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    new, found = marked.subn(lambda m: m[1] + text.rstrip("\n") + "\n" + m[2], old)
    if found != 1:
        raise ValueError(f"{page} has {found} blocks between <!-- {name} --> and <!-- /{name} -->")
    page.write_text(new, encoding="utf-8")
