"""Converts a metric's return value to one number."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any


def number(returned: Any, name: str, *, key: str | None = None, keyed: bool = False) -> float:
    """A metric's return value as a float; NaN and infinity are left to the optimizer.

    Args:
        returned: a number, an array with one element, or a dict of these.
        name: the metric's name, for the message.
        key: the entry of a dict, with or without the prefix ``eval_``.
        keyed: whether the only entry of a dict needs no key.

    Raises:
        TypeError: it is not one number.
        KeyError: the dict has no such key.
    """
    if isinstance(returned, Mapping):
        if key is None and not (keyed and len(returned) == 1):
            raise TypeError(
                f"{name!r} returned a dict; expected one number: choose an entry with key=..., "
                f"one of {', '.join(map(repr, returned))}"
            )
        bare = key.removeprefix("eval_") if key is not None else next(iter(returned))
        for candidate in (key, bare, f"eval_{bare}"):
            if candidate in returned:
                return number(returned[candidate], f"{name}[{candidate}]")
        raise KeyError(f"{name!r} returned no {key!r}; it has {', '.join(map(repr, returned))}")
    if key is not None:
        raise TypeError(
            f"{name!r} returned {told(returned)}, not a dict with {key!r}: leave out key"
        )
    value = plain(returned)
    if value is None:
        hints = {
            "NoneType": "let it return its number",
            "str": "let it return the number, not its text",
            "coroutine": 'await it in an ordinary function; only convention="reward" may be async',
        }
        reduce = "reduce it to one, for example with .mean() or average='macro'"
        raise TypeError(
            f"{name!r} returned {told(returned)}; expected one number: "
            f"{hints.get(type(returned).__name__, reduce)}"
        )
    return value


def plain(value: Any) -> float | None:
    """A number or an array with one element as a float; None for anything else.

    >>> plain(True), plain("1"), plain([1.0])
    (1.0, None, None)
    """
    try:
        bare = value.item() if hasattr(value, "item") else value
        return float(bare) if isinstance(bare, numbers.Number) else None  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None


def told(value: Any) -> str:
    """A short description of a value, for a message.

    >>> told(None), told("0.5"), told([1, 2])
    ('None', "the string '0.5'", 'a list of 2')
    """
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the string {value!r}"
    if hasattr(value, "shape"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {value!r}"
