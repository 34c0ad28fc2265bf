"""Examples: how a task holds them, and how some are drawn from a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Example = Mapping[str, Any]


def held(examples: Iterable[Any]) -> Sequence[Any]:
    """Examples that can be accessed in any order; iterables without an index become a list.

    So do a ``datasets.Dataset``, because building a row takes it long, and the rows of a
    ``pandas.DataFrame``, whose iterator yields the columns; a row has no key for a missing cell.
    Other sequences are kept as they are, and may build a row whenever it is accessed; one without
    an iterator, as torch's data sets, gets one.
    """
    table: Any = examples
    if hasattr(table, "iterrows"):
        rows, there = table.to_dict("records"), table.notna().to_dict("records")
        return [
            {column: cell for column, cell in row.items() if has[column]}
            for row, has in zip(rows, there, strict=True)
        ]
    indexed = hasattr(examples, "__getitem__") and hasattr(examples, "__len__")
    if indexed and not hasattr(examples, "column_names"):
        return table if hasattr(examples, "__iter__") else Indexed(table)
    return list(examples)


def missing(value: Any) -> bool:
    """Whether a value stands for none: None, or NaN as tables have it.

    >>> missing(None), missing(float("nan")), missing(""), missing(0)
    (True, True, False, False)
    """
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


class Indexed(Sequence[Any]):
    """A data set that has an index and a length, but no iterator.

    Python would iterate such an object until it raises IndexError, which torch does not ask of its
    data sets: one that computes its rows never does.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self._rows[place]

    def __iter__(self) -> Iterator[Any]:
        return (self._rows[place] for place in range(len(self)))


class Drawn(list[Any]):
    """Some examples of a split, with their places in it.

    A row that its split builds on access is another object each time, so that only its place says
    which one it is.

    Args:
        split: the sequence to draw from.
        places: indices into it.

    Example:
        >>> batch = Drawn(["a", "b", "c"], [2, 0])
        >>> batch, batch.places
        (['c', 'a'], [2, 0])
    """

    def __init__(self, split: Sequence[Any], places: Sequence[int]) -> None:
        super().__init__(split[place] for place in places)
        self.split, self.places = split, places
