"""Callbacks: objects that observe a run and may end it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
"""A line of ``metrics.jsonl``."""


class Callback:
    """Observes a run and may end it.

    Any object with at least one of these methods, or a function ``on_step(metrics, step)``, can
    be passed as a callback. An exception in a callback ends the run; repeating the call resumes it.

    Example:
        >>> import zoopt
        >>> class Budget(zoopt.Callback):
        ...     def __init__(self, forwards):
        ...         self.left = self.forwards = forwards
        ...
        ...     def on_step(self, metrics, step):
        ...         self.left = self.forwards - metrics["forwards"]
        ...
        ...     def stop(self):
        ...         return {"forwards": self.forwards} if self.left <= 0 else {}
        >>> budget = Budget(100)
        >>> budget.on_step({"step": 50, "forwards": 100}, 50)
        >>> budget.stop()
        {'forwards': 100}
    """

    def on_step(self, metrics: Entry, step: int) -> None:
        """Called after each update.

        Args:
            metrics: the step's line of ``metrics.jsonl``: value, lr, forwards, seconds, …
            step: number of updates so far.
        """

    def on_evaluation(self, metrics: Entry, step: int) -> None:
        """Called after each evaluation; ``metrics["dev"]`` is the score, None without examples."""

    def stop(self) -> dict[str, Any]:
        """Returns {reason: value} to end the run, {} to continue; called before each step."""
        return {}

    def close(self) -> None:
        """Called when the run ends, whatever the reason."""


_HOOKS = ("on_step", "on_evaluation", "stop", "close")


class Callbacks(Callback):
    """Combines several callbacks into one.

    Args:
        members: functions ``on_step(metrics, step)``, and objects with methods of
            :class:`Callback`.

    Raises:
        TypeError: a member is neither.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        self._hooks: dict[str, list[Callable[..., Any]]] = {name: [] for name in _HOOKS}
        for member in members:
            self.add(member)

    def add(self, member: Any) -> None:
        """Adds a callback."""
        found = [name for name in _HOOKS if callable(getattr(member, name, None))]
        if inspect.isclass(member) or not (found or callable(member)):
            raise TypeError(
                f"callback {member!r} is neither a function on_step(metrics, step) nor an object "
                f"with one of the methods {', '.join(_HOOKS)}"
            )
        for name in found:
            self._hooks[name].append(getattr(member, name))
        if not found:
            self._hooks["on_step"].append(member)

    def on_step(self, metrics: Entry, step: int) -> None:
        """Calls all members."""
        for hook in self._hooks["on_step"]:
            hook(metrics, step)

    def on_evaluation(self, metrics: Entry, step: int) -> None:
        """Calls all members."""
        for hook in self._hooks["on_evaluation"]:
            hook(metrics, step)

    def stop(self) -> dict[str, Any]:
        """Returns the reasons of all members."""
        reasons: dict[str, Any] = {}
        for hook in self._hooks["stop"]:
            reasons |= hook() or {}
        return reasons

    def close(self) -> None:
        """Closes all members, even if one of them raises."""
        failed: Exception | None = None
        for hook in self._hooks["close"]:
            try:
                hook()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed
