"""Names: what a string in a config or a call stands for. Objectives are an open registry.

Directions, engines, estimators and update rules are the dict literals below, and adding one is a
line here. Objectives come from anywhere: the decorator :func:`register_objective`, entry points in
the group ``zoopt.objectives`` of any installed package, and dotted paths ``package.module:name``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from zoopt import presets
from zoopt.arguments import joined, split
from zoopt.directions import Gaussian, LowRank, Rademacher, Sphere
from zoopt.engines import Batched, Copy, InPlace, Overlay
from zoopt.estimators import NSPSA, SPSA, Dueling, OneSided, Ranking, ZOEstimator
from zoopt.interfaces import Direction, UpdateRule
from zoopt.metrics import Metric, check_needs
from zoopt.updates import SGD, Adam, Momentum, Projected

DIRECTIONS: dict[str, type[Any]] = {
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "sphere": Sphere,
    "lowrank": LowRank,
}
ENGINES: dict[str, type[Any]] = {
    "inplace": InPlace,
    "copy": Copy,
    "overlay": Overlay,
    "batched": Batched,
}
ESTIMATORS: dict[str, Callable[..., ZOEstimator]] = {
    "spsa": SPSA,
    "nspsa": NSPSA,
    "mezo": presets.mezo,
    "qzo": presets.qzo,
    "onesided": OneSided,
    "dueling": Dueling,
    "ranking": Ranking,
}
UPDATES: dict[str, type[Any]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "adam": Adam,
    "projected": Projected,
}

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
) -> Callable[[F], F]:
    """Registers ``(predictions, references) -> float`` as an objective under a name.

    Keyword-only parameters of the function are arguments of the objective, which a string gives
    after its name: ``words(target=40)``.

    Args:
        name: what configs and calls will write.
        higher_is_better: whether tuning raises the number or lowers it.
        needs: what to hand it as predictions; see :class:`zoopt.Metric`.
        bounds: the smallest and largest value it can have.
        piecewise_constant: whether a small move of θ mostly leaves it as it is.
        smooth: the name of a smooth objective that a run may begin with in its place.
        from_base: whether it measures from what the base model says; see :class:`zoopt.Metric`.

    Raises:
        ValueError: the name belongs to another function already.

    Example:
        >>> import zoopt
        >>> @zoopt.register_objective("share_of_ones", higher_is_better=True)
        ... def share_of_ones(predictions, references):
        ...     return sum(predictions) / len(predictions)
        >>> zoopt.get_objective("share_of_ones")([0, 1, 1, 1], [0, 0, 0, 0])
        0.75
    """
    check_needs(name, needs)

    def register(function: F) -> F:
        metric = Metric(
            name,
            function,
            higher_is_better,
            needs,
            bounds,
            piecewise_constant,
            smooth=smooth,
            from_base=from_base,
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
    """The names of all objectives: registered in this process, or offered by entry points."""
    return sorted({*_metrics, *_offered()})


def objectives() -> dict[str, Metric]:
    """All objectives by name, for a listing: those too that need arguments before they score."""
    return {name: _objective(name) for name in list_objectives()}


def get_objective(name: str, **arguments: Any) -> Metric:
    """The objective of a name, or of a dotted path ``package.module:function``.

    Args:
        name: a name or path; arguments may follow it, as in ``"words(target=40)"``.
        **arguments: further ones, which may be anything.

    Raises:
        KeyError: nothing has that name; the message has the nearest ones.
        ValueError: what the path or entry point names does not say which way is better, or the
            arguments are not those that it takes.

    Example:
        >>> import zoopt
        >>> short = zoopt.get_objective("words(target=3)")
        >>> short.name, short(["one two three four"], [{"prompt": "Count."}])
        ('words(target=3)', 1.0)
    """
    name, written = split(name)
    return bound(_objective(name), {**written, **arguments})


def bound(metric: Metric, arguments: Mapping[str, Any]) -> Metric:
    """A metric with arguments of its function given, its name saying which.

    Raises:
        ValueError: it takes no such argument, or needs one that is not given.
    """
    takes = metric.arguments
    for given in arguments:
        if not takes:
            raise ValueError(f"objective {metric.name!r} takes no arguments, so no {given!r}")
        if given not in takes:
            raise ValueError(unknown(f"argument of {metric.name!r}", given, takes))
    missing = {key: ... for key in takes if takes[key] is ... and key not in arguments}
    if missing:
        raise ValueError(
            f"objective {metric.name!r} needs {' and '.join(missing)}: write "
            f"{joined(metric.name, missing)}"
        )
    if not arguments:
        return metric
    function = functools.partial(metric.function, **arguments)
    function.__doc__ = metric.function.__doc__
    return replace(metric, name=joined(metric.name, arguments), function=function, each=None)


def is_path(objective: str) -> bool:
    """Whether an objective is written as ``package.module:name``, perhaps with arguments."""
    return ":" in objective.partition("(")[0]


def _objective(name: str) -> Metric:
    if name in _metrics:
        return _metrics[name]
    offered = _offered()
    if name in offered:
        loaded = offered[name].load()
    elif is_path(name):
        module, _, attribute = name.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
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
    """The metric that a function is registered as, if it is."""
    if isinstance(function, Metric):
        return function
    return next((m for m in _metrics.values() if m.function is function), None)


def make_direction(direction: str | Direction) -> Direction:
    """The direction family of a name; an object is handed through.

    A number may follow the name, as in ``"lowrank:4"``: the one that the family is made with.
    """
    if not isinstance(direction, str):
        return _complete(direction, repr(getattr(direction, "name", type(direction).__name__)))
    family, colon, number = direction.partition(":")
    factory = _lookup("direction", family, DIRECTIONS)
    if colon and not (number.isdecimal() and inspect.signature(factory).parameters):
        raise ValueError(f"direction {direction!r}: {family} takes no {number!r} after its name")
    return _complete(factory(int(number)) if colon else factory(), repr(direction))


def _complete(direction: Any, name: str) -> Direction:
    """The direction family, if it has the methods of one."""
    methods = ("bind", "add_", "rows")
    missing = [method for method in methods if not callable(getattr(direction, method, None))]
    if missing:
        raise TypeError(
            f"direction {name} has no {' and no '.join(missing)}. zoopt.interfaces.Direction says "
            "what each of its methods does, and zoopt.testing.check_direction tests them"
        )
    made: Direction = direction
    return made


def make_estimator(name: str | ZOEstimator, **options: Any) -> ZOEstimator:
    """The estimator of a name, made with the options; an object is handed through."""
    if not isinstance(name, str):
        return name
    factory = _lookup("estimator", name, ESTIMATORS)
    if "n" not in inspect.signature(factory).parameters and options.pop("n", 1) != 1:
        raise ValueError(f"estimator {name!r} draws one direction a step; use 'nspsa' for more")
    made: ZOEstimator = _made("estimator", name, factory, options)
    return made


def make_update(name: str | UpdateRule, **options: Any) -> UpdateRule:
    """The update rule of a name, made with the options; an object is handed through."""
    if not isinstance(name, str):
        return name
    made: UpdateRule = _made("update rule", name, _lookup("update rule", name, UPDATES), options)
    return made


def engine_class(name: str) -> type[Any]:
    """The engine of a name."""
    found: type[Any] = _lookup("engine", name, ENGINES)
    return found


def describe(member: Any) -> dict[str, Any]:
    """An estimator or update rule as a name and options: what makes it again.

    A member of a class that is not registered is described by its class; it cannot be made by name.
    """
    names = {kind: name for name, kind in (*UPDATES.items(), *ESTIMATORS.items())}
    if type(member) not in names:
        return {"name": f"{type(member).__module__}:{type(member).__qualname__}"}
    options = inspect.signature(type(member)).parameters
    kept = {key: value for key, value in vars(member).items() if key in options}
    if not isinstance(kept.get("direction", ""), str):
        kept["direction"] = kept["direction"].name
    return {"name": names[type(member)], **kept}


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that nothing has, with the nearest one that something has."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"no {kind} is called {name!r}.{hint} There are: {', '.join(known)}."


def _lookup(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise KeyError(unknown(kind, name, table))
    return table[name]


def _made(kind: str, name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    taken = inspect.signature(factory).parameters
    wrong = [option for option in options if option not in taken]
    if wrong and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        if not taken:
            raise TypeError(f"{kind} {name!r} takes no options, and was given {wrong[0]!r}")
        raise TypeError(f"{kind} {name!r}: {unknown('option', wrong[0], taken)}")
    return factory(**options)


def _offered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _origin(function: Any) -> str:
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{getattr(function, '__module__', '?')}.{name}"
