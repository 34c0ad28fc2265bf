"""What identifies the functions that a run is given: their arguments, and a hash of their code.

Other arguments (weights, options of a scorer) make another run. Other code may not: a function that
only prints more is the same. So the two are kept apart, see :func:`is_code`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch

from zoopt.objectives.combination import Combination
from zoopt.objectives.conventions.reading import has
from zoopt.objectives.metric import Metric
from zoopt.objectives.registry import packages_with_objectives

_CODE = "its code, Python {}.{}".format(*sys.version_info)
"""Bytecode can only be compared between the same versions of Python."""
_LONG = 20
"""Longer collections are told by their hash."""


def is_code(name: str) -> bool:
    """Whether a name in a flat description is of a function's code, or of values that it holds.

    >>> is_code("functions.0.its code, Python 3.11"), is_code("weights")
    (True, False)
    """
    return any(part.startswith("its ") for part in name.split("."))


def described(value: Any) -> Any:
    """What identifies an objective, a function, or an argument of one, as values of JSON.

    Installed packages' functions and classes are told by their names. Of other functions it has a
    hash of the code, without line numbers, and the defaults and the numbers and texts of the
    closure. Objects without a value that can be compared are told by their type.

    Example:
        >>> import functools, math
        >>> described(functools.partial(math.isclose, abs_tol=0.5))
        {'function': 'math.isclose', 'arguments': {'abs_tol': 0.5}}
    """
    return _described(value, frozenset())


def _described(value: Any, within: frozenset[int]) -> Any:
    if id(value) in within:
        return "itself"
    told = functools.partial(_described, within=within | {id(value)})
    if isinstance(value, Metric):
        return _metric(value, told)
    if isinstance(value, functools.partial):
        positional = {str(i): told(each) for i, each in enumerate(value.args)}
        given = {**positional, **{name: told(each) for name, each in value.keywords.items()}}
        return {"function": told(value.func), "arguments": given}
    if hasattr(value, "_score_func"):  # scikit-learn's scorers
        return {
            "function": told(value._score_func),
            "arguments": told(getattr(value, "_kwargs", {})),
            "sign": told(getattr(value, "_sign", 1)),
            "asks": told(getattr(value, "_response_method", "")),
        }
    if inspect.ismethod(value):
        return {"function": told(value.__func__), "of": _name(type(value.__self__))}
    if inspect.isroutine(value):
        return _name(value) if _packaged(value) else _function(value, told)
    return _plain(value, told)


def _metric(metric: Metric, told: Callable[[Any], Any]) -> dict[str, Any]:
    if isinstance(metric, Combination):
        source: Any = {
            "weights": [weight for weight, _ in metric.terms],
            "bounds": list(map(str, metric.constraints)),
            "metrics": metric.metrics,
        }
    else:
        source = metric.function if metric.source is None else metric.source
    made = told(source)
    return {
        "higher_is_better": metric.higher_is_better,
        "needs": told(metric.needs),
        **(made if isinstance(made, dict) else {"function": made}),
    }


def _function(function: Any, told: Callable[[Any], Any]) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    if code is None:
        return {"its name": _name(function)}
    held = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            content = cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
        # Not lists and dicts, which may count calls or hold a cache.
        if callable(content) or isinstance(content, str | int | float | None):
            held[name] = told(content)
    digest = hashlib.sha256(repr(_instructions(code, function.__doc__)).encode())
    return {
        _CODE: f"{code.co_name} {digest.hexdigest()[:16]}",
        "its closure": held,
        "its defaults": {
            **{str(i): told(each) for i, each in enumerate(function.__defaults__ or ())},
            **{name: told(each) for name, each in (function.__kwdefaults__ or {}).items()},
        },
    }


def _instructions(code: CodeType, doc: str | None = None) -> tuple[Any, ...]:
    """A function's bytecode, constants and names, without its docstring and line numbers."""
    constants = [
        _instructions(each)
        if isinstance(each, CodeType)
        else sorted(map(repr, each))
        if isinstance(each, frozenset)
        else repr(each)
        for each in code.co_consts
    ]
    if doc is not None and constants and constants[0] == repr(doc):
        constants[0] = repr(None)
    return code.co_code.hex(), constants, code.co_names


def _plain(value: Any, told: Callable[[Any], Any]) -> Any:
    """A number or a text, a collection of what can be told, the hash of an array, or a type."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # NaN does not equal itself
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return json.loads(json.dumps(hashed(value)))
    if isinstance(value, Mapping):
        return _short({str(name): told(each) for name, each in value.items()})
    if isinstance(value, Sequence):
        each = [told(one) for one in value]
        nested = any(isinstance(one, dict) for one in each)
        return _short({str(i): one for i, one in enumerate(each)} if nested else each)
    kind = type(value)
    if has(value, "update", "compute", "reset"):  # a metric of torchmetrics
        public = {k: v for k, v in vars(value).items() if k[0] != "_" and k != "training"}
        options = {k: v for k, v in public.items() if isinstance(v, str | int | float | None)}
        return {"class": _name(kind), "options": options}
    if _packaged(kind):
        return _name(kind)
    call = inspect.getattr_static(kind, "__call__", None)
    return {"its class": _name(kind), **({} if _packaged(call) else _function(call, told))}


def _short(collection: Any) -> Any:
    if len(collection) <= _LONG:
        return collection
    return hashlib.sha256(json.dumps(collection, sort_keys=True).encode()).hexdigest()


def hashed(value: Any) -> Any:
    """JSON form of other types: the hash of an array, a numpy number, or the type's name."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, np.generic):
        return value.item()
    return type(value).__qualname__


def _name(value: Any) -> str:
    """Package and name, without modules in between, which may be moved by another version."""
    package = (getattr(value, "__module__", None) or "builtins").partition(".")[0]
    return f"{package}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _packaged(value: Any) -> bool:
    """Whether a function or a class is of an installed package, which identify it by its name."""
    module = getattr(value, "__module__", None) or "builtins"
    package = module.partition(".")[0]
    if package in {"zoopt", *packages_with_objectives()}:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module != "__main__" and not hasattr(value, "__code__")  # such as exec's
    where = {sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(Path(file).is_relative_to(folder) for folder in where)
