"""Calling conventions of existing metrics, which can be used unchanged.

Each module here implements one convention: whether a function follows it (``matches``), and how to
get one number from it (``read``). Another convention takes a module and a line in
:data:`CONVENTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from zoopt.objectives.conventions import (
    compute_metrics,
    evaluate,
    model_function,
    own,
    reward,
    scikit,
    torchmetrics,
)
from zoopt.objectives.conventions.reading import Reading, build, name_of, parameters
from zoopt.objectives.conventions.reward import rewards
from zoopt.objectives.metric import Metric
from zoopt.objectives.returned import told
from zoopt.support.imports import imported

__all__ = ["CONVENTIONS", "Convention", "metric", "rewards"]


@dataclass(frozen=True)
class Convention:
    """A way of calling metrics.

    Attributes:
        called: the call, in one line.
        matches: whether a function, an object or a name appears to follow it.
        read: makes a reading from a function and the ``needs`` that the user states.
    """

    called: str
    matches: Callable[[Any], bool]
    read: Callable[[Any, str | None], Reading]


CONVENTIONS: dict[str, Convention] = {
    "zoopt": Convention(own.CALLED, own.matches, own.read),
    "sklearn": Convention(scikit.CALLED, scikit.matches, scikit.read),
    "torchmetrics": Convention(torchmetrics.CALLED, torchmetrics.matches, torchmetrics.read),
    "evaluate": Convention(evaluate.CALLED, evaluate.matches, evaluate.read),
    "compute_metrics": Convention(
        compute_metrics.CALLED, compute_metrics.matches, compute_metrics.read
    ),
    "reward": Convention(reward.CALLED, reward.matches, reward.read),
    "direct": Convention(model_function.CALLED, model_function.matches, model_function.read),
}


def metric(
    fn: Any,
    convention: str | None = None,
    *,
    name: str | None = None,
    higher_is_better: bool | None = None,
    needs: str | None = None,
    key: str | None = None,
) -> Metric:
    """Your own metric, unchanged, as an objective that zoopt can tune.

    The result checks its inputs and what the function returns: as many predictions as references,
    and one number.

    Args:
        fn: a function, an object, the name of a scikit-learn scorer, or a dotted path
            ``package.module:name`` to one of them.
        convention: how it is called, a key of :data:`CONVENTIONS`; recognised by its parameters or
            methods if not given.
        name: the metric's name; its own name if not given.
        higher_is_better: whether larger values are better, if it does not state this itself.
        needs: the form of predictions that it takes, a key of
            :data:`zoopt.objectives.forms.FORMS`; the convention's default if not given.
        key: the entry to use, if it returns a dict.

    Raises:
        TypeError: no convention is recognised, or the function cannot be called that way.
        ValueError: the predictions it takes or its direction are not known.

    Example:
        >>> from functools import partial
        >>> from sklearn.metrics import fbeta_score
        >>> metric("f1_macro")([[2.0, 1.0], [0.0, 1.0], [0.5, 0.0]], [0, 1, 0])
        1.0
        >>> f2 = metric(partial(fbeta_score, beta=2))
        >>> f2.name, f2.higher_is_better, round(f2([1, 1, 0, 0], [1, 0, 0, 0]), 3)
        ('fbeta_score', True, 0.833)
        >>> metric(lambda told, truth: sum(told), "zoopt", higher_is_better=False)([1, 2], [0, 0])
        3.0
    """
    if isinstance(fn, str) and ":" in fn:
        fn = imported(fn)
    if isinstance(fn, Metric):
        stated = {"name": name, "higher_is_better": higher_is_better, "needs": needs}
        return replace(fn, **{k: v for k, v in stated.items() if v is not None})  # type: ignore[arg-type]
    if isinstance(fn, type):
        raise TypeError(f"{fn.__name__} is a class: pass an instance of it, {fn.__name__}(...)")
    if convention is None:
        convention = recognise(fn)
    elif convention not in CONVENTIONS:
        raise ValueError(f"convention={convention!r} is none of {', '.join(CONVENTIONS)}")
    elif not (callable(fn) or CONVENTIONS[convention].matches(fn)):
        raise TypeError(f"{told(fn)} cannot be called as {CONVENTIONS[convention].called}")
    reading = CONVENTIONS[convention].read(fn, needs)
    source = fn if key is None else {"function": fn, "key": key}
    return build(reading, name=name, higher_is_better=higher_is_better, key=key, source=source)


def recognise(fn: Any) -> str:
    """The convention that a metric follows, judging by its methods or parameter names.

    >>> recognise(lambda y_true, y_pred: 0), recognise(lambda completions, **columns: [])
    ('sklearn', 'reward')

    Raises:
        TypeError: it matches none, or several.
    """
    found = [name for name, convention in CONVENTIONS.items() if convention.matches(fn)]
    if len(found) == 1:
        return found[0]
    looks = f"looks like {' and '.join(found)}" if found else "follows no known convention"
    takes = f"({', '.join(parameters(fn))})" if callable(fn) else f", a {type(fn).__name__},"
    ways = "\n".join(f"  {name}: {way.called}" for name, way in CONVENTIONS.items())
    raise TypeError(
        f"{name_of(fn)}{takes} {looks}. State how it is called with "
        f'zoopt.metric(fn, convention="..."), one of\n{ways}'
    )
