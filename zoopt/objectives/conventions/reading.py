"""Shared by all conventions: how a function is read, called and named."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoopt.objectives.conventions.checking import require_form
from zoopt.objectives.forms import FORMS
from zoopt.objectives.metric import Metric
from zoopt.objectives.returned import number

PAIRS = {"predictions": "references", "preds": "target"}
"""Parameter names for predictions and references; scikit-learn has any ``y_…`` and ``y_true``."""


@dataclass(frozen=True)
class Reading:
    """How a convention interprets a metric.

    Attributes:
        name: the metric's default name.
        call: ``(predictions, references)`` to the metric's return value.
        needs: the form of predictions, a key of :data:`zoopt.objectives.forms.FORMS`; None if the
            user must state it.
        higher_is_better: whether larger values are better; None if the user must state it.
        settled: whether the convention fixes the direction, so that the user cannot change it.
        allowed: the allowed values of ``needs``.
        keyed: whether it returns a dict, whose only entry needs no key.
        doc: its docstring.
        asks: the function of the model, for a metric without predictions.
        each: see :class:`zoopt.Metric`.
    """

    name: str
    call: Callable[[Any, Any], Any]
    needs: str | None = "labels"
    higher_is_better: bool | None = None
    settled: bool = False
    allowed: tuple[str, ...] = tuple(FORMS)
    keyed: bool = False
    doc: str | None = None
    asks: Callable[..., Any] | None = None
    each: Callable[[Any, Any], Sequence[float | None]] | None = None


def build(
    reading: Reading,
    *,
    name: str | None = None,
    higher_is_better: bool | None = None,
    key: str | None = None,
    source: Any = None,
) -> Metric:
    """The metric of a reading, which checks its inputs and its result.

    Args:
        reading: how the metric is interpreted.
        name: as for :func:`zoopt.metric`, like the next two.
        higher_is_better: whether larger values are better.
        key: the entry to use, if it returns a dict.
        source: what was read; see :class:`zoopt.Metric`.

    Raises:
        ValueError: the direction or the predictions are unknown, or contradict the convention.
    """
    title = name or (key or "").removeprefix("eval_") or reading.name
    needs = reading.needs
    if needs is None or needs not in reading.allowed:
        problem = (
            "does not say what it takes as predictions"
            if needs is None
            else f"cannot take needs={needs!r}"
        )
        raise ValueError(
            f"{title!r} {problem}: state needs=..., one of {', '.join(map(repr, reading.allowed))}"
        )
    up = reading.higher_is_better if higher_is_better is None else higher_is_better
    if up is None:
        raise ValueError(
            f"{title!r} does not say whether higher is better: state higher_is_better=True, or "
            "False for an error or a loss"
        )
    if reading.settled and up != reading.higher_is_better:
        raise ValueError(
            f"higher_is_better={up} contradicts the convention of {title!r}, by which higher is "
            "better (the scorer of a loss returns its negative): leave it out"
        )

    def score(predictions: Any, references: Any) -> float:
        require_form(title, needs, predictions, references)
        returned = reading.call(predictions, references)
        return number(returned, title, key=key, keyed=reading.keyed)

    score.__name__ = score.__qualname__ = title
    score.__doc__ = reading.doc
    return Metric(
        title,
        score,
        up,
        needs,
        piecewise_constant=FORMS[needs].made_of in ("classes", "texts"),
        of_model=reading.asks,
        each=reading.each,
        source=source,
    )


def inner(fn: Any) -> Any:
    """The function that a ``functools.partial`` finally calls; anything else unchanged."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def name_of(fn: Any) -> str:
    """A function's name, or an object's class.

    >>> name_of(functools.partial(max, 1)), name_of(lambda p, r: 0), name_of(PAIRS)
    ('max', 'metric', 'dict')
    """
    fn = inner(fn)
    name = str(getattr(fn, "__name__", type(fn).__name__))
    return "metric" if name == "<lambda>" else name


def doc_of(fn: Any) -> str | None:
    """A function's docstring."""
    return inspect.getdoc(inner(fn))


def has(fn: Any, *methods: str) -> bool:
    """Whether an object has all these methods."""
    return all(callable(getattr(fn, method, None)) for method in methods)


def parameters(fn: Any) -> dict[str, inspect.Parameter]:
    """A function's parameters by name; none if it has no signature."""
    try:
        return dict(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return {}


def positional(fn: Any) -> list[str]:
    """Names of the parameters that can be passed by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in parameters(fn).items() if parameter.kind in kinds]


def pair(fn: Any) -> tuple[str, str] | None:
    """The parameters for predictions and for references; None if their names do not tell.

    >>> pair(lambda y_pred, y_true: 0)
    ('y_pred', 'y_true')
    """
    first = positional(fn)[:2]
    for predictions, references in PAIRS.items():
        if {predictions, references} == set(first):
            return predictions, references
    others = [name for name in first if name != "y_true"]
    if len(first) == 2 and len(others) == 1 and others[0].startswith("y_"):
        return others[0], "y_true"
    return None


def ordered(fn: Any, *, references_first: bool) -> Callable[..., Any]:
    """A function of ``(predictions, references)`` that calls another in its own order.

    Args:
        fn: a function of both.
        references_first: its order, if its parameter names do not tell.

    Raises:
        TypeError: it cannot be called with two arguments.
    """
    must_bind(fn, 2)
    names = pair(fn)
    if names is not None:
        references_first = positional(fn)[0] == names[1]
    if not references_first:
        return lambda predictions, references, **more: fn(predictions, references, **more)
    return lambda predictions, references, **more: fn(references, predictions, **more)


def must_bind(fn: Any, count: int) -> None:
    """Raises TypeError if a function cannot be called with ``count`` arguments."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise TypeError(
            f"{name_of(fn)}{signature} cannot be called with {count} "
            f"argument{'s' * (count > 1)}: {error}. Bind its other arguments, as in "
            f"functools.partial({name_of(fn)}, ...)"
        ) from None
