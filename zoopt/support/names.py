"""Names with arguments in one string, as in a config file: ``words(target=40)``."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

_HOW = "write arguments as name=literal, as in words(target=40)"


def split(text: str) -> tuple[str, dict[str, Any]]:
    """Splits a string into a name and its arguments, evaluating literals only.

    >>> split("keywords(words=['please', 'thank you'])")
    ('keywords', {'words': ['please', 'thank you']})
    >>> split("accuracy")
    ('accuracy', {})

    Raises:
        ValueError: the arguments cannot be parsed.
    """
    name, parenthesis, rest = text.partition("(")
    if not parenthesis:
        return text, {}
    try:
        call = ast.parse(f"_({rest}", mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} cannot be parsed ({error.msg}): {_HOW}") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{text!r} has something after its closing parenthesis: {_HOW}")
    unnamed = [*call.args, *(k.value for k in call.keywords if k.arg is None)]
    if unnamed:
        given = ast.unparse(unnamed[0])
        raise ValueError(f"{text!r} has no name for argument {given}: {_HOW}")
    arguments = {}
    for keyword in call.keywords:
        if keyword.arg in arguments:
            raise ValueError(f"{text!r} gives {keyword.arg} twice: {_HOW}")
        try:
            arguments[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            raise ValueError(
                f"{ast.unparse(keyword.value)} in {text!r} is not a number, quoted string, list, "
                f"True, False or None: {_HOW}"
            ) from None
    return name.strip(), arguments


def joined(name: str, arguments: Mapping[str, Any]) -> str:
    """The inverse of :func:`split`; ``...`` stands for a value to be filled in.

    >>> joined("words", {"target": 40}), joined("f1", {})
    ('words(target=40)', 'f1')
    """
    if not arguments:
        return name
    given = (f"{key}={'...' if value is ... else repr(value)}" for key, value in arguments.items())
    return f"{name}({', '.join(given)})"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The error message for an unknown name, with the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"no {kind} is called {name!r}.{hint} Available: {', '.join(known)}."
