"""TRL's convention: reward functions, called by keyword with prompts, completions and columns."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zoopt.objectives.conventions.reading import Reading, build, doc_of, name_of, parameters
from zoopt.objectives.metric import Metric
from zoopt.objectives.returned import plain, told

CALLED = "fn(prompts=..., completions=..., **columns) -> a number or None for each, maybe async"

OWN = ("prompt", "completion", "completion_ids", "prompts", "completions")
"""Columns that a reward function gets in another form, or not at all."""


def matches(fn: Any) -> bool:
    """Whether it takes completions, or prompts."""
    return not {"completions", "prompts"}.isdisjoint(parameters(fn))


def read(fn: Any, needs: str | None) -> Reading:
    """Reads one reward function; its mean over the examples is maximized."""
    return _reading([fn], [1.0], needs)


def rewards(
    functions: Sequence[Callable[..., Any]],
    weights: Sequence[float] | None = None,
    *,
    name: str | None = None,
) -> Metric:
    """Several TRL reward functions as one metric: their weighted sum, as in TRL's trainers.

    If a function returns None for an example, it adds nothing to the sum; if all do, the example
    is skipped. The metric is the mean over the examples.

    Args:
        functions: reward functions, ordinary or ``async``.
        weights: one number per function; all 1 if not given.
        name: the metric's name; the functions' names joined by ``+`` if not given.

    Example:
        >>> def short(completions, **columns):
        ...     return [float(len(text) < 5) for text in completions]
        >>> def right(completions, answer, **columns):
        ...     return [float(text == a) for text, a in zip(completions, answer)]
        >>> both = rewards([short, right], weights=[0.5, 1.0])
        >>> both(
        ...     ["4", "eleven"],
        ...     [{"prompt": "2+2", "answer": "4"}, {"prompt": "5+6", "answer": "11"}],
        ... )
        0.75
    """
    if isinstance(functions, str) or not isinstance(functions, Sequence) or not functions:
        raise TypeError(f"rewards takes a list of reward functions, not {told(functions)}")
    weights = [1.0] * len(functions) if weights is None else list(weights)
    if len(weights) != len(functions):
        raise ValueError(
            f"{len(functions)} reward functions, but {len(weights)} weights; expected one each"
        )
    for i, weight in enumerate(weights):
        value = plain(weight)
        if value is None or not math.isfinite(value):
            raise ValueError(f"weight {i} is {weight!r}; expected a finite number")
    source = {"functions": tuple(functions), "weights": weights}
    return build(_reading(functions, weights, None), name=name, source=source)


def _reading(
    functions: Sequence[Callable[..., Any]], weights: Sequence[float], needs: str | None
) -> Reading:
    for fn in functions:
        if not callable(fn):
            raise TypeError(f"a reward function is called as {CALLED}; {told(fn)} cannot be")
    title = "+".join(map(name_of, functions))

    def each(
        completions: Sequence[str], examples: Sequence[Mapping[str, Any]]
    ) -> list[float | None]:
        offered = _offered(completions, examples)
        said = [_rewards(fn, offered, examples) for fn in functions]
        sums = []
        for row in zip(*said, strict=True):
            parts = [w * value for w, value in zip(weights, row, strict=True) if value is not None]
            sums.append(math.fsum(parts) if parts else None)
        return sums

    def call(completions: Sequence[str], examples: Sequence[Mapping[str, Any]]) -> float:
        sums = [value for value in each(completions, examples) if value is not None]
        if not sums:
            raise ValueError(
                f"reward {title!r} returned None for all {len(examples)} examples; expected a "
                "number for at least one, to take the mean of"
            )
        return math.fsum(sums) / len(sums)

    return Reading(
        title,
        call,
        needs or "completions",
        higher_is_better=True,
        settled=True,
        allowed=("completions",),
        doc=doc_of(functions[0]) if len(functions) == 1 else f"Weighted sum of {title}.",
        each=each,
    )


def _offered(
    completions: Sequence[str], examples: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """All keyword arguments that a reward function may take."""
    for i, example in enumerate(examples):
        if not isinstance(example, Mapping):
            raise TypeError(
                f"reference {i} is {told(example)}; a reward function takes the examples "
                "themselves, dicts with a prompt"
            )
        if "prompt" not in example:
            raise KeyError(
                f"example {i} has no column 'prompt'; it has {', '.join(map(repr, example))}"
            )
    prompts = [example["prompt"] for example in examples]
    names = dict.fromkeys(name for example in examples for name in example)
    offered = {
        "prompts": prompts,
        "completions": [
            [{"role": "assistant", "content": text}] if isinstance(prompt, list | tuple) else text
            for text, prompt in zip(completions, prompts, strict=True)
        ],
    }
    for name in names:
        if name == "completion_ids" or name not in OWN:
            offered[name] = [example.get(name) for example in examples]
    return offered


def _rewards(
    fn: Callable[..., Any], offered: Mapping[str, list[Any]], examples: Sequence[Any]
) -> list[float | None]:
    """One function's reward for each example."""
    title, takes = name_of(fn), parameters(fn)
    bound = fn.keywords if isinstance(fn, functools.partial) else {}
    given = dict(offered)
    if "completion_ids" in takes and takes["completion_ids"].default is inspect.Parameter.empty:
        given.setdefault("completion_ids", [None] * len(examples))
    several = [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]
    missing = [
        name
        for name, parameter in takes.items()
        if parameter.default is parameter.empty
        and parameter.kind not in several
        and name not in given
    ]
    if missing:
        there = [name for name in given if name not in OWN]
        raise KeyError(
            f"reward {title!r} takes {', '.join(map(repr, missing))}, but no example has that "
            f"column; besides the prompt there are {', '.join(map(repr, there)) or 'none'}. Add "
            "it to the examples or give the parameter a default"
        )
    if takes and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        given = {name: values for name, values in given.items() if name in takes}
    returned = _finished(fn(**{name: v for name, v in given.items() if name not in bound}))
    return _checked(returned, title, len(examples))


def _checked(returned: Any, title: str, count: int) -> list[float | None]:
    values = returned.tolist() if hasattr(returned, "tolist") else returned
    if not isinstance(values, list | tuple):
        raise TypeError(
            f"reward {title!r} returned {told(returned)}; expected a list of {count}, with a "
            "number for each completion, or None to skip it"
        )
    if len(values) != count:
        raise ValueError(f"reward {title!r} returned {len(values)} rewards for {count} completions")
    checked = [None if value is None else plain(value) for value in values]
    for i, (value, number) in enumerate(zip(values, checked, strict=True)):
        if value is not None and number is None:
            raise TypeError(f"reward {title!r} returned {value!r} at index {i}; expected a number")
        if number is not None and not math.isfinite(number):
            raise ValueError(
                f"reward {title!r} returned {value!r} at index {i}; expected a finite number, or "
                "None to skip the example"
            )
    return checked


def _finished(returned: Any) -> Any:
    """The result of an awaitable, even if an event loop is running; other values unchanged."""
    if not inspect.isawaitable(returned):
        return returned

    async def wait() -> Any:
        return await returned

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, wait()).result()
