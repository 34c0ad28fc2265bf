"""Formats sizes and durations."""

from __future__ import annotations


def in_bytes(size: float) -> str:
    """Formats a number of bytes.

    >>> in_bytes(940), in_bytes(2_340_000)
    ('940 B', '2.3 MB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def in_time(seconds: float) -> str:
    """Formats a duration.

    >>> in_time(0.25), in_time(75), in_time(7260)
    ('0.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
