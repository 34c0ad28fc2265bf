"""Names: the classes that strings in a config or a call refer to.

Directions, engines, estimators and update rules are listed in the dicts below; adding one takes
one line here. The registry of objectives is open: the decorator :func:`register_objective`, entry
points in the group ``zoopt.objectives`` of any installed package, and dotted paths
``package.module:name``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from zoopt import presets
from zoopt.directions import Gaussian, LowRank, Rademacher, Sphere
from zoopt.engines import Batched, Copy, InPlace, Overlay
from zoopt.estimators import NSPSA, SPSA, Dueling, OneSided, Ranking, ZOEstimator
from zoopt.interfaces import Direction, UpdateRule
from zoopt.support.names import unknown
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


def make_direction(direction: str | Direction) -> Direction:
    """The direction family with a given name; an object is returned as it is.

    The name may be followed by the family's parameter, as in ``"lowrank:4"``.
    """
    if not isinstance(direction, str):
        return _complete(direction, repr(getattr(direction, "name", type(direction).__name__)))
    family, colon, number = direction.partition(":")
    factory = _lookup("direction", family, DIRECTIONS)
    if colon and not (number.isdecimal() and inspect.signature(factory).parameters):
        raise ValueError(f"direction {direction!r}: {family} does not take {number!r} as parameter")
    return _complete(factory(int(number)) if colon else factory(), repr(direction))


def _complete(direction: Any, name: str) -> Direction:
    """The direction family, after a check that it has the methods of one."""
    methods = ("bind", "add_", "rows")
    missing = [method for method in methods if not callable(getattr(direction, method, None))]
    if missing:
        raise TypeError(
            f"direction {name} has no {' and no '.join(missing)}. zoopt.interfaces.Direction "
            "documents the methods, and zoopt.testing.check_direction tests them"
        )
    made: Direction = direction
    return made


def make_estimator(name: str | ZOEstimator, **options: Any) -> ZOEstimator:
    """The estimator with a given name and options; an object is returned as it is.

    Raises:
        TypeError: it does not take an option, or the argument is neither a name nor an estimator.
    """
    if isinstance(name, ZOEstimator):
        return name
    if not isinstance(name, str):
        raise TypeError(
            f"estimator={name!r} is not an estimator: give a name, or an object such as "
            "zoopt.MeZO(eps=1e-3)"
        )
    factory = _lookup("estimator", name, ESTIMATORS)
    if "n" not in inspect.signature(factory).parameters and options.pop("n", 1) != 1:
        raise ValueError(f"estimator {name!r} draws one direction per step; use 'nspsa' for more")
    made: ZOEstimator = _made("estimator", name, factory, options)
    return made


def own_n(name: str) -> int:
    """The default number of directions of the estimator with a given name."""
    parameters = inspect.signature(_lookup("estimator", name, ESTIMATORS)).parameters
    default = parameters["n"].default if "n" in parameters else 1
    return default if isinstance(default, int) else 1


def make_update(name: str | UpdateRule, **options: Any) -> UpdateRule:
    """The update rule with a given name and options; an object is returned as it is."""
    if not isinstance(name, str):
        return name
    made: UpdateRule = _made("update rule", name, _lookup("update rule", name, UPDATES), options)
    return made


def engine_class(name: str) -> type[Any]:
    """The engine class with a given name."""
    found: type[Any] = _lookup("engine", name, ENGINES)
    return found


def describe(member: Any) -> dict[str, Any]:
    """An estimator's or update rule's name and options, from which it can be constructed again.

    An object of an unregistered class is described by its class; it cannot be constructed by name.
    """
    names = {kind: name for name, kind in (*UPDATES.items(), *ESTIMATORS.items())}
    if type(member) not in names:
        return {"name": f"{type(member).__module__}:{type(member).__qualname__}"}
    options = inspect.signature(type(member)).parameters
    kept = {key: value for key, value in vars(member).items() if key in options}
    if not isinstance(kept.get("direction", ""), str):
        kept["direction"] = kept["direction"].name
    return {"name": names[type(member)], **kept}


def _lookup(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise KeyError(unknown(kind, name, table))
    return table[name]


def _made(kind: str, name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    taken = inspect.signature(factory).parameters
    wrong = [option for option in options if option not in taken]
    if wrong and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        if not taken:
            raise TypeError(f"{kind} {name!r} takes no options, but was given {wrong[0]!r}")
        raise TypeError(f"{kind} {name!r}: {unknown('option', wrong[0], taken)}")
    return factory(**options)
