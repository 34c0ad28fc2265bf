"""Reads examples from files, data frames, data sets and the Hugging Face hub."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from zoopt.tasks.examples import held


def read_examples(source: Any) -> list[dict[str, Any]]:
    """Reads examples as dicts from a CSV, JSONL or Parquet file, a dataset, a frame, or a list.

    An example has no key for a missing cell of a table. JSON values keep their types. A CSV or TSV
    column is read as numbers if every value is written as Python would print it (``7``, ``0.5``),
    and else as strings (``007``, ``true``, ``1e3``).

    Args:
        source: a path ending in .csv, .tsv, .jsonl, .json or .parquet; a ``datasets.Dataset``; a
            pandas frame; a list of dicts; or a data set of the hub as ``"owner/name:split"`` or
            ``"owner/name/configuration:split"``, which requires the package ``datasets``.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: the hub has no such data set, or cannot be reached.
        ValueError: the file is not in the format that its name says, or not in UTF-8.
    """
    if isinstance(source, pd.DataFrame):
        return list(held(source))
    if not isinstance(source, str | Path):
        return [dict(row) for row in source]
    path = Path(source).expanduser()
    readers: dict[str, Callable[[Path], Any]] = {
        ".csv": _separated,
        ".tsv": _tab_separated,
        ".jsonl": _json_lines,
        ".json": _json,
        ".parquet": pd.read_parquet,
    }
    if path.suffix in readers:
        if not path.exists():
            raise FileNotFoundError(f"no such data file: {path}")
        return read_examples(_read(path, readers[path.suffix]))
    return _from_hub(str(source))


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """Reads a file, whose name an error then has."""
    try:
        return reader(path)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not in UTF-8 ({error.reason} at byte {error.start}): convert it, for "
            f"example with iconv -f LATIN1 -t UTF-8 {path.name} > new{path.suffix}"
        ) from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise ValueError(
            f"{path} cannot be read as a table: {str(error).strip()}. Expected a line with the "
            "names of the columns, and a line for each example"
        ) from None


def _separated(path: Path, **how: Any) -> pd.DataFrame:
    """Reads a table; a column is numeric if every value is written as Python prints it."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, **how)
    return frame.apply(lambda column: pd.Series(_numbers(column.tolist()), dtype=object))


def _numbers(texts: list[str]) -> list[Any]:
    """Returns integers or floats if they print as the given texts; else the texts.

    >>> _numbers(["7", "-2"]), _numbers(["7", "07"]), _numbers(["0.5", "1.0"])
    ([7, -2], ['7', '07'], [0.5, 1.0])
    """
    for kind in (int, float):
        with suppress(ValueError):
            values = [kind(text) for text in texts]
            if list(map(str, values)) == texts:
                return values
    return texts


def _tab_separated(path: Path) -> pd.DataFrame:
    """Reads a TSV file; quotation marks are literal if all lines have as many tabs."""
    with path.open(encoding="utf-8") as file:
        tabs = {line.count("\t") for line in file if line.strip()}
    quoting = csv.QUOTE_NONE if len(tabs) == 1 else csv.QUOTE_MINIMAL
    return _separated(path, sep="\t", quoting=quoting)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            rows.append(_object(_parsed(line, f"line {number} of {path}"), f"line {number}", path))
    return rows


def _json(path: Path) -> list[dict[str, Any]]:
    """Reads a list of objects, or an object of columns (lists, or dicts as pandas writes them)."""
    read = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
    if isinstance(read, dict) and all(isinstance(column, list | dict) for column in read.values()):
        columns = [c if isinstance(c, list) else list(c.values()) for c in read.values()]
        read = [dict(zip(read, row, strict=True)) for row in zip(*columns, strict=True)]
    if not isinstance(read, list):
        raise ValueError(
            f"{path} holds {type(read).__name__}; expected a list of objects, one per example, or "
            "an object of columns"
        )
    return [_object(row, f"element {number}", path) for number, row in enumerate(read)]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from None


def _object(value: Any, where: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(
            f'{where} of {path} is {type(value).__name__}; expected an object, {{"column": value}}'
        )
    return value


def _from_hub(name: str) -> list[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ImportError(
            f"{name!r} is not a .csv, .tsv, .jsonl, .json or .parquet file; to load it as a data "
            "set of the hub: pip install 'zoopt-torch[data]'"
        ) from None
    path, _, split = name.partition(":")
    owner, _, rest = path.partition("/")
    title, _, configuration = rest.partition("/")
    where = "/".join(filter(None, (owner, title)))
    try:
        rows = datasets.load_dataset(where, configuration or None, split=split or "train")
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(
            f"{name!r} is not a .csv, .tsv, .jsonl, .json or .parquet file, and could not be "
            f"loaded as a data set of the hub: {error}. Without a network, use local files in "
            "data.train and data.test"
        ) from error
    return [dict(row) for row in rows]
