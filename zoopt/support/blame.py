"""Tracebacks of errors raised in the user's own code."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Collection
from pathlib import Path

_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_PACKAGES = {"site-packages", "dist-packages"}


def own_traceback(error: BaseException, packages: Collection[str]) -> str:
    """Formats the traceback from the first frame in the user's code; "" if there is none.

    Args:
        error: the caught error.
        packages: names of packages that are not the user's, wherever they are located. Installed
            packages are not the user's either.

    >>> try:
    ...     own_traceback.missing
    ... except AttributeError as error:
    ...     own_traceback(error, {"zoopt"})
    ''
    """
    step = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        file = frame.f_code.co_filename
        installed = file.startswith((*_INSTALLED, "<")) or _PACKAGES & {*Path(file).parts}
        if package not in packages and not installed:
            return "".join(traceback.format_exception(type(error), error, step))
        step = step.tb_next
    return ""
