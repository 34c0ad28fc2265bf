"""Objectives by name, an open registry.

Sources are the decorator :func:`register_objective`, entry points in the group
``zoopt.objectives`` of any installed package, and dotted paths ``package.module:name``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from zoopt.objectives.conventions.reading import name_of, pair, positional
from zoopt.objectives.forms import check_needs
from zoopt.objectives.metric import Metric
from zoopt.support.imports import imported
from zoopt.support.names import joined, split, unknown

ENTRY_POINTS = "zoopt.objectives"


F = TypeVar("F", bound=Callable[..., Any])


_metrics: dict[str, Metric] = {}


def register_objective(
    name: str,
    *,
    higher_is_better: bool,
    needs: str = "labels",
    bounds: tuple[float, float] = (-math.inf, math.inf),
    piecewise_constant: bool = False,
    smooth: str = "",
    from_base: bool = False,
    each: Callable[..., Any] | None = None,
) -> Callable[[F], F]:
    """Registers ``(predictions, references) -> float`` as an objective under a name.

    Keyword-only parameters of the function are arguments of the objective, which may follow its
    name in a string: ``words(target=40)``.

    Args:
        name: the name in configs and calls.
        higher_is_better: whether tuning raises the number or lowers it.
        needs: the form of predictions that it takes; see :class:`zoopt.Metric`.
        bounds: the smallest and largest value it can have.
        piecewise_constant: whether small changes of θ usually leave the value unchanged.
        smooth: name of a smooth surrogate that a run may start with.
        from_base: whether it compares with the base model's outputs; see :class:`zoopt.Metric`.
        each: for a mean over examples, a function of the same arguments that returns each
            example's value.

    Raises:
        ValueError: the name is taken by another function, or cannot be looked up.
        TypeError: the names of its parameters show that the function takes references first.

    Example:
        >>> import zoopt
        >>> @zoopt.register_objective("share_of_ones", higher_is_better=True)
        ... def share_of_ones(predictions, references):
        ...     return sum(predictions) / len(predictions)
        >>> zoopt.get_objective("share_of_ones")([0, 1, 1, 1], [0, 0, 0, 0])
        0.75
    """
    check_needs(name, needs)
    if split(name) != (name, {}) or is_path(name):
        raise ValueError(
            f"objective name {name!r} could not be looked up: parentheses mark arguments, colons "
            "paths, and space around a name is ignored; use none of these"
        )

    def register(function: F) -> F:
        _check_order(name, function)
        metric = Metric(
            name,
            function,
            higher_is_better,
            needs,
            bounds,
            piecewise_constant,
            smooth=smooth,
            from_base=from_base,
            each=each,
        )
        held = _metrics.get(name)
        if held is not None and _origin(held.function) != _origin(function):
            raise ValueError(
                f"objective {name!r} is already {_origin(held.function)}; "
                f"register {_origin(function)} under another name"
            )
        _metrics[name] = metric
        return function

    return register


def list_objectives() -> list[str]:
    """The names of all objectives: registered in this process, or provided by entry points."""
    return sorted({*_metrics, *_offered()})


def objectives() -> dict[str, Metric]:
    """All objectives by name, for a listing, including those that need arguments to score."""
    return {name: _objective(name) for name in list_objectives()}


def packages_with_objectives() -> set[str]:
    """The packages whose entry points provide objectives."""
    return {point.module.partition(".")[0] for point in _offered().values()}


def get_objective(name: str, **arguments: Any) -> Metric:
    """The objective with a given name, or at a dotted path ``package.module:function``.

    Args:
        name: a name or path; arguments may follow it, as in ``"words(target=40)"``.
        **arguments: further arguments, with any values.

    Raises:
        KeyError: no objective has that name; the message has the nearest one.
        ModuleNotFoundError: there is no module at the path.
        ValueError: the object at the path or entry point has no known direction, or does not take
            the arguments.

    Example:
        >>> import zoopt
        >>> short = zoopt.get_objective("words(target=3)")
        >>> short.name, short(["one two three four"], [{"prompt": "Count."}])
        ('words(target=3)', 1.0)
    """
    name, written = split(name)
    return bound(_objective(name), {**written, **arguments})


def bound(metric: Metric, arguments: Mapping[str, Any]) -> Metric:
    """A metric with arguments of its function bound, and included in its name.

    Raises:
        ValueError: it takes no such argument, or needs one that is not given.
    """
    takes = metric.arguments
    for given in arguments:
        if not takes:
            raise ValueError(
                f"objective {metric.name!r} takes no arguments, but was given {given!r}"
            )
        if given not in takes:
            raise ValueError(unknown(f"argument of {metric.name!r}", given, takes))
    missing = {key: ... for key, default in takes.items() if arguments.get(key, default) is ...}
    if missing:
        raise ValueError(
            f"objective {metric.name!r} needs {' and '.join(missing)}: write "
            f"{joined(metric.name, missing)} with a value in place of ..."
        )
    if not arguments:
        return metric
    function = functools.partial(metric.function, **arguments)
    function.__doc__ = metric.function.__doc__
    each = metric.each and functools.partial(metric.each, **arguments)
    return replace(metric, name=joined(metric.name, arguments), function=function, each=each)


def is_path(objective: str) -> bool:
    """Whether an objective is a path ``package.module:name``, with or without arguments."""
    return ":" in objective.partition("(")[0]


def _objective(name: str) -> Metric:
    if name in _metrics:
        return _metrics[name]
    offered = _offered()
    if name in offered:
        loaded = offered[name].load()
    elif is_path(name):
        loaded = imported(name)
    else:
        raise KeyError(unknown("objective", name, list_objectives()))
    found = registered(loaded)
    if found is not None:
        return found
    raise ValueError(
        f"objective {name!r} loads {_origin(loaded)}, which does not say whether higher is better: "
        "decorate it with @zoopt.register_objective(name, higher_is_better=...)"
    )


def registered(function: Callable[..., Any]) -> Metric | None:
    """The metric that a function is registered as; None if it is not registered."""
    if isinstance(function, Metric):
        return function
    return next((m for m in _metrics.values() if m.function is function), None)


def _check_order(name: str, function: Callable[..., Any]) -> None:
    """Refuses parameters ``(y_true, y_pred)``, which would get predictions as references."""
    names = pair(function)
    if names is not None and positional(function)[0] == names[1]:
        raise TypeError(
            f"objective {name!r} is called with (predictions, references), but {name_of(function)} "
            f"takes ({names[1]}, {names[0]}): register a function that passes them on in that "
            "order, or use zoopt.metric(...), which matches parameters by name"
        )


def _offered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _origin(function: Any) -> str:
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{getattr(function, '__module__', '?')}.{name}"
