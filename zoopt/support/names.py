"""Names in a string: with arguments, as in ``words(target=40)``, and mistyped ones."""

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
        return text.strip(), {}
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
        except (ValueError, TypeError):
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
    return f"no {kind} is called {name!r}.{hint(name, known)} Available: {', '.join(known)}."


def hint(name: str, known: Iterable[str]) -> str:
    """A sentence to append to an error message, with the nearest known name; "" if there is none.

    >>> hint("f1_makro", ["accuracy", "f1_macro"]), hint("f1_makro", ["words"])
    (" Did you mean 'f1_macro'?", '')
    """
    near = nearest(name, known)
    return f" Did you mean {near!r}?" if near else ""


def nearest(name: str, known: Iterable[str], similarity: float = 0.5) -> str | None:
    """The known name that is most similar to a mistyped one; None if none is similar.

    Args:
        name: the mistyped name.
        known: the names it may have been meant as.
        similarity: the least share of letters in common, 0 to 1, as ``difflib`` measures it.
    """
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=similarity)), None)
