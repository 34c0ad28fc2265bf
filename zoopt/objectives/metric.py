"""A metric: the part of an objective that computes one number from all predictions."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoopt.interfaces import NonFiniteLossError
from zoopt.objectives.forms import FORMS, Needs, check_needs
from zoopt.objectives.returned import number


@dataclass(frozen=True)
class Parts:
    """Predictions, or references, for each metric of a combination; indexed by example."""

    items: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.items[0])

    def __getitem__(self, examples: Any) -> Parts:
        return Parts(tuple(item[examples] for item in self.items))


def for_each(needs: Needs, make: Callable[[str], Any]) -> Any:
    """The result of ``make`` for one form of predictions, or :class:`Parts` for several."""
    if isinstance(needs, str):
        return make(needs)
    return Parts(tuple(for_each(each, make) for each in needs))


def as_array(values: Any) -> NDArray[Any]:
    """Values as an array; tensors may be on any device."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def first_nan(predictions: Any) -> int | None:
    """Index of the first example with a NaN in its prediction; None if there is none.

    >>> first_nan([[0.5, 0.5], [0.2, math.nan]])
    1
    """
    array = as_array(predictions)
    if array.dtype.kind != "f" or array.ndim == 0:
        return None
    missing = np.argwhere(np.isnan(array))
    return int(missing[0, 0]) if missing.size else None


def refuse_nan(predictions: Any, scorer: str) -> None:
    """Raises NonFiniteLossError with the index of the first example whose prediction is NaN."""
    if (example := first_nan(predictions)) is not None:
        raise NonFiniteLossError(
            f"{scorer} cannot score example {example}: its prediction is NaN. If it was finite "
            "before, use a smaller lr or eps."
        )


@dataclass(frozen=True)
class Metric:
    """A number to tune: one score from predictions and references.

    Attributes:
        name: its name.
        function: ``(predictions, references) -> float``.
        higher_is_better: whether larger values are better.
        needs: the form of predictions that it takes, a key of
            :data:`zoopt.objectives.forms.FORMS`; a combination has one for each of its metrics,
            and takes :class:`Parts`.
        bounds: the smallest and largest value it can have.
        piecewise_constant: whether small changes of θ usually leave the value unchanged, as with
            accuracy: it then has no useful gradient, and probes often tie.
        of_model: for objectives of the model itself, the function of a model (and a batch) that
            returns the number; ``function`` then averages over batches.
        smooth: name of a smooth surrogate to start a run with; empty if there is none.
        from_base: whether it compares with the base model's outputs. Its references are then
            :class:`Parts`: those outputs in the form of ``needs``, and the task's references.
        each: for a mean over examples, the function ``(predictions, references)`` that returns
            each example's value, None for one that is skipped.
        source: what it was made from, or a dict of several parts, by which a resumed run checks
            that its objective is the same; None for ``function`` itself.
    """

    name: str
    function: Callable[..., Any]
    higher_is_better: bool
    needs: Needs = "labels"
    bounds: tuple[float, float] = (-math.inf, math.inf)
    piecewise_constant: bool = False
    of_model: Callable[..., Any] | None = None
    smooth: str = ""
    from_base: bool = False
    each: Callable[[Any, Any], Sequence[float | None]] | None = None
    source: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_needs(self.name, self.needs)

    def __call__(self, predictions: Any, references: Any) -> float:
        """The score of all predictions at once.

        Raises:
            ValueError: there are no predictions.
            TypeError: its function did not return one number.
            NonFiniteLossError: a prediction is NaN; the message has the example's index.
        """
        self._check(predictions)
        return number(self.function(predictions, references), self.name)

    def by_example(self, predictions: Any, references: Any) -> NDArray[np.float64] | None:
        """The value of each example, NaN for one that is skipped; None without :attr:`each`.

        Raises:
            ValueError: as for a call.
            NonFiniteLossError: as for a call.
        """
        if self.each is None:
            return None
        self._check(predictions)
        values = np.array(self.each(predictions, references), np.float64)
        if values.shape != (len(predictions),):
            raise ValueError(
                f"each of {self.name!r} returned an array of shape {values.shape} for "
                f"{len(predictions)} examples; expected one value, or None, for each"
            )
        return values

    def _check(self, predictions: Any) -> None:
        if hasattr(predictions, "__len__") and len(predictions) == 0:
            raise ValueError(f"{self.name!r} has nothing to score: it was given no predictions")
        if isinstance(self.needs, str) and FORMS[self.needs].made_of == "numbers":
            refuse_nan(predictions, repr(self.name))

    @property
    def arguments(self) -> dict[str, Any]:
        """Its function's keyword-only parameters with their defaults, ``...`` if there is none.

        They may follow its name: ``words(target=40)``.
        """
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):
            return {}
        return {
            p.name: ... if p.default is p.empty else p.default
            for p in parameters
            if p.kind is p.KEYWORD_ONLY
        }

    @property
    def about(self) -> str:
        """The first line of its function's docstring."""
        return ((self.function.__doc__ or "").strip().splitlines() or [""])[0]
