"""Callbacks: objects that observe a run, and may end it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
"""A line of ``metrics.jsonl``."""


class Callback:
    """Observes a run and may end it; any object with some of these methods will do.

    A function ``on_step(metrics, step)`` works as well. An exception in a callback ends the run;
    starting it again resumes it.

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
        """An update was made.

        Args:
            metrics: the step's line of ``metrics.jsonl``: value, lr, forwards, seconds, …
            step: number of updates so far.
        """

    def on_evaluation(self, metrics: Entry, step: int) -> None:
        """The development examples were scored: ``metrics["dev"]``, None if there are none."""

    def stop(self) -> dict[str, Any]:
        """Why the run should end, as {reason: value}; empty to go on. Asked before each step."""
        return {}

    def close(self) -> None:
        """The run has ended, however it did."""


_HOOKS = ("on_step", "on_evaluation", "stop", "close")


class Callbacks(Callback):
    """Several callbacks as one.

    Args:
        members: functions ``on_step(metrics, step)``, and objects with methods of
            :class:`Callback`.

    Raises:
        TypeError: one of them is neither.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        self._hooks: dict[str, list[Callable[..., Any]]] = {name: [] for name in _HOOKS}
        for member in members:
            self.add(member)

    def add(self, member: Any) -> None:
        """One more."""
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
        """Tells all."""
        for hook in self._hooks["on_step"]:
            hook(metrics, step)

    def on_evaluation(self, metrics: Entry, step: int) -> None:
        """Tells all."""
        for hook in self._hooks["on_evaluation"]:
            hook(metrics, step)

    def stop(self) -> dict[str, Any]:
        """The reasons of all."""
        reasons: dict[str, Any] = {}
        for hook in self._hooks["stop"]:
            reasons |= hook() or {}
        return reasons

    def close(self) -> None:
        """Closes all, the others too where one fails."""
        failed: Exception | None = None
        for hook in self._hooks["close"]:
            try:
                hook()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed
