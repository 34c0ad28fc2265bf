"""Detects settings at an end of the tried range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Setting = Mapping[str, float]


def ends(chosen: Setting, tried: Sequence[Setting]) -> dict[str, str]:
    """The numbers of a setting that are the lowest or highest tried with the same other numbers.

    At least three values must have been tried, since either of two is at an end.

    Args:
        chosen: one of the tried settings.
        tried: all settings, with the same names.

    Returns:
        "lowest" or "highest" by name.

    Example:
        >>> tried = [{"lr": lr, "eps": eps} for lr, eps in zip(range(6), (0.1, 0.3) * 3)]
        >>> ends({"lr": 1, "eps": 0.3}, tried), ends({"lr": 2, "eps": 0.1}, tried)
        ({'lr': 'lowest'}, {})
    """
    found = {}
    for name, value in chosen.items():
        values = {setting[name] for setting in tried if {**setting, name: value} == chosen}
        if len(values) > 2 and value in (min(values), max(values)):
            found[name] = "lowest" if value == min(values) else "highest"
    return found


def beyond(chosen: Setting, tried: Sequence[Setting]) -> list[Setting]:
    """Extends the range: the setting with each number at an end moved past it, one at a time.

    The step is the ratio of the two outermost values tried, with any other numbers.

    Example:
        >>> beyond({"lr": 0.01}, [{"lr": 0.01}, {"lr": 0.1}, {"lr": 1.0}])
        [{'lr': 0.001}]
    """
    made: list[Setting] = []
    for name, end in ends(chosen, tried).items():
        values = sorted({setting[name] for setting in tried}, reverse=end == "highest")
        ratio = values[0] / values[1]
        made.append({**chosen, name: float(f"{chosen[name] * ratio:.3g}")})
    return made
