"""Warns of PyPI's ``zoopt``, another project with the same import name."""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version


def warn_of_namesake() -> None:
    """Warns if the other project is installed: both write into one folder, ``zoopt/``."""
    try:
        other = version("zoopt")
    except PackageNotFoundError:
        return
    warnings.warn(
        f"PyPI's other package 'zoopt' ({other}) is installed next to zoopt-torch. Both are "
        "imported as zoopt and share a folder, so whichever was installed last has overwritten "
        "the other. To keep this one: pip uninstall zoopt, then "
        "pip install --force-reinstall --no-deps zoopt-torch. To have both, use two environments.",
        stacklevel=3,
    )
