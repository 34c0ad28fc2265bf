"""Whose code raised an error: the user's own is shown with its traceback."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Collection

_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def own_traceback(error: BaseException, packages: Collection[str]) -> str:
    """The traceback from the first line of the user's code on; empty where there is none in it.

    Args:
        error: as it was caught.
        packages: names of packages that are not the user's, wherever they lie. What is installed is
            not either.

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
        if package not in packages and not file.startswith((*_INSTALLED, "<")):
            return "".join(traceback.format_exception(type(error), error, step))
        step = step.tb_next
    return ""
