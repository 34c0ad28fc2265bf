"""Objectives written as expressions: ``f1 - 0.1 * words(target=3) subject to mcc >= 0.5``."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

_STRING = r"""(?P<quote>"{3}|'{3}|["'])(?:\\.|(?!(?P=quote)).)*(?P=quote)"""
_PATH = r"[^\W\d][\w.-]*:[\w.]+"
_SUBJECT = re.compile(r"(?:^| )subject to(?: |$)")
_WEIGHT = re.compile(r" weight (\d+\.?\d*(?:[eE][+-]?\d+)?)$")


@dataclass(frozen=True)
class Bound:
    """A bound on a metric.

    Attributes:
        name: the metric, with its arguments.
        bound: the bound; the value may equal it.
        at_most: whether it is an upper bound; otherwise it is a lower bound.
        weight: the penalty for one unit of violation.
    """

    name: str
    bound: float
    at_most: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Expression:
    """A weighted sum of metrics, and bounds on metrics.

    Attributes:
        terms: (weight, metric with its arguments) pairs.
        bounds: the bounds.
    """

    terms: tuple[tuple[float, str], ...]
    bounds: tuple[Bound, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that it names, with their arguments, in order."""
        return (*(name for _, name in self.terms), *(bound.name for bound in self.bounds))


def is_combination(text: str, known: Iterable[str] = ()) -> bool:
    """Whether an objective is an expression rather than one metric.

    Args:
        text: the objective.
        known: names of metrics, which may contain other characters than letters, digits and ``_``.

    >>> is_combination("f1 - 0.1*words"), is_combination("my-package.rewards:polite(to='a - b')")
    (True, False)
    >>> is_combination("f1-macro"), is_combination("f1-macro", known=["f1-macro"])
    (True, False)
    """
    read = _Masked(text, known).read
    if _SUBJECT.search(read):
        return True
    try:
        return isinstance(_tree(read), ast.BinOp | ast.UnaryOp)
    except SyntaxError:
        return bool(re.search(r"[-+*/]", read))


def parse(text: str, known: Iterable[str] = ()) -> Expression:
    """Reads an expression: a sum, and after ``subject to`` bounds joined by ``and``.

    A metric is named, or given as a path ``package.module:name``, either with arguments. A hyphen
    in a path belongs to it, so a minus before a path needs a space after it.

    Args:
        text: the expression.
        known: as for :func:`is_combination`.

    Raises:
        ValueError: it cannot be parsed.

    Example:
        >>> parse("f1 - 0.1 * words(target=3) subject to mcc >= 0.5 weight 2").names
        ('f1', 'words(target=3)', 'mcc')
    """
    masked = _Masked(text, known)
    summed, *bounded = _SUBJECT.split(masked.read, maxsplit=1)
    if not summed:
        raise ValueError(f"objective {text!r} names no metric to tune")
    parts = bounded[0].split(" and ") if bounded else []
    return Expression(
        tuple(_sum(summed, text, masked)),
        tuple(_bound(part.strip(), text, masked) for part in parts),
    )


class _Masked:
    """An objective with its strings, paths and known names replaced, so that Python can parse it.

    Args:
        text: the objective.
        known: names of metrics.

    Attributes:
        read: the objective, each of these replaced by a string with its number.
    """

    def __init__(self, text: str, known: Iterable[str]) -> None:
        self._kept: list[str] = []
        odd = [name for name in known if not name.isidentifier() or keyword.iskeyword(name)]
        names = "|".join(map(re.escape, sorted(odd, key=len, reverse=True)))
        whole = [rf"(?<![\w.])(?:{names})(?![\w.:])"] if odd else []
        tokens = re.compile("|".join([_STRING, *whole, _PATH, r"\s+"]), re.DOTALL)
        self.read = tokens.sub(self._keep, text).strip()

    def _keep(self, found: re.Match[str]) -> str:
        if found[0].isspace():
            return " "
        self._kept.append(found[0])
        return f"'{len(self._kept) - 1}'"

    def shown(self, part: str) -> str:
        """A part of :attr:`read` as it was given."""
        return re.sub(r"'(\d+)'", lambda found: self._kept[int(found[1])], part)


def _tree(read: str) -> ast.expr:
    return ast.parse(read, mode="eval").body


def _sum(summed: str, text: str, masked: _Masked) -> Iterator[tuple[float, str]]:
    """The weight and the name of each term."""
    try:
        tree = _tree(summed)
    except SyntaxError as error:
        rest = summed[error.offset - 1 :] if error.offset else ""
        raise _unparsed(text, masked.shown(rest), f" ({error.msg})") from None
    for sign, term in _addends(tree):
        weight, metric = _weighted(term)
        name = _name(metric, summed)
        if name is None:
            raise _unparsed(text, masked.shown(ast.get_source_segment(summed, term) or ""))
        yield sign * weight, masked.shown(name)


def _unparsed(text: str, rest: str, why: str = "") -> ValueError:
    return ValueError(
        f"objective {text!r} cannot be parsed at {repr(rest) if rest else 'its end'}{why}: write "
        "it as in 'f1 - 0.1 * repetition subject to words <= 40 weight 0.5'"
    )


def _addends(node: ast.expr) -> Iterator[tuple[float, ast.expr]]:
    match node:
        case ast.BinOp(left, ast.Add(), right):
            yield from _addends(left)
            yield 1.0, right
        case ast.BinOp(left, ast.Sub(), right):
            yield from _addends(left)
            yield -1.0, right
        case _:
            yield 1.0, node


def _weighted(node: ast.expr) -> tuple[float, ast.expr]:
    match node:
        case ast.BinOp(ast.Constant(int() | float() as weight), ast.Mult(), metric):
            return float(weight), metric
    return 1.0, node


def _bound(part: str, text: str, masked: _Masked) -> Bound:
    found = _WEIGHT.search(part)
    weight, bounded = (float(found[1]), part[: found.start()]) if found else (1.0, part)
    with suppress(SyntaxError):
        match _tree(bounded):
            case ast.Compare(metric, [ast.LtE() | ast.GtE() as order], [limit]):
                name, number = _name(metric, bounded), _number(limit)
                if name is not None and number is not None:
                    return Bound(masked.shown(name), number, isinstance(order, ast.LtE), weight)
    raise ValueError(
        f"constraint {masked.shown(part)!r} of {text!r} cannot be parsed: write it as in "
        "'words <= 40' or 'accuracy >= 0.8 weight 5', and join several by 'and'"
    )


def _name(node: ast.expr, read: str) -> str | None:
    """A metric's name and arguments, as written; None if it is something else."""
    match node:
        case ast.Name() | ast.Attribute() | ast.Call() | ast.Constant(str()):
            return ast.get_source_segment(read, node)
    return None


def _number(node: ast.expr) -> float | None:
    match node:
        case ast.Constant(int() | float() as value):
            return float(value)
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
            return -float(value)
    return None
