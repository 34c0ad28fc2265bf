"""Imports an object by its dotted path, ``package.module:name``."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from zoopt.support.names import hint


def imported(path: str) -> Any:
    """The object at a path ``package.module:name``; the name may be one of a class, ``Class.name``.

    Raises:
        ModuleNotFoundError: there is no such module. What the module itself raises when it is
            imported is passed on.
        ValueError: it is not such a path, or the module has no such name.

    Example:
        >>> imported("math:sqrt")(9.0)
        3.0
    """
    module, _, names = path.partition(":")
    if not module or not names or module.startswith("."):
        raise ValueError(
            f"{path!r} is not a path to an object: write package.module:name, as in 'math:sqrt'"
        )
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # of an import in the module
        raise ModuleNotFoundError(
            f"there is no module {error.name!r} for {path!r}: install it, or run this in the "
            "folder that contains it",
            name=error.name,
        ) from None
    within = f"module {module!r}"
    for name in names.split("."):
        if not hasattr(found, name):
            raise ValueError(f"{within} has no {name!r}.{hint(name, dir(found))}")
        found, within = getattr(found, name), f"{name!r} in {within}"
    return found


def import_from_here() -> None:
    """Lets imports find modules in the working directory, after all installed ones.

    ``python -m zoopt`` does, but not the installed command ``zoopt``.
    """
    if "" not in sys.path:
        sys.path.append("")
