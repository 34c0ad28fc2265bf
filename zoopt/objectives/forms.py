"""The forms of predictions that a metric can take, such as labels or texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Form:
    """What is known of predictions of one form.

    Attributes:
        about: the predictions, and the references if they are not one number or class each.
        made_of: numbers, which may be NaN; classes or texts, which small changes of θ usually leave
            unchanged; or what a function of the model returns.
        dimensions: the possible numbers of dimensions of their array; empty if they are not
            compared with one number or class each.
        costly: whether metrics of them may be slow or paid for, such as a reward model or a judge.
    """

    about: str
    made_of: Literal["numbers", "classes", "texts", "returned"]
    dimensions: tuple[int, ...] = ()
    costly: bool = False


FORMS = {
    "labels": Form("class indices, shape (N,)", "classes", (1,)),
    "probabilities": Form("class probabilities, shape (N, classes)", "numbers", (2,)),
    "values": Form("numbers, shape (N,)", "numbers", (1,)),
    "scores": Form(
        "the task's own outputs: class logits, shape (N, classes), or numbers, shape (N,)",
        "numbers",
        (1, 2),
    ),
    "texts": Form("N generated texts; references are one or several texts for each", "texts"),
    "completions": Form(
        "N generated texts; references are the examples, dicts with a prompt", "texts", costly=True
    ),
    "margins": Form(
        "score(chosen) − score(rejected), shape (N,); references are people's judgements", "numbers"
    ),
    "model": Form("the model itself, optionally with a batch", "returned", (1,), costly=True),
}
"""The forms of predictions, by the name that a metric's ``needs`` has."""

Needs = str | tuple[Any, ...]
"""A key of :data:`FORMS`, or one for each metric of a combination, which may itself be one."""


def each_of(needs: Needs) -> Iterator[str]:
    """The keys of :data:`FORMS` in ``needs``.

    >>> list(each_of(("labels", ("texts", "labels"))))
    ['labels', 'texts', 'labels']
    """
    if isinstance(needs, str):
        yield needs
    else:
        for each in needs:
            yield from each_of(each)


def forms_of(needs: Needs) -> list[Form]:
    """The forms of predictions in ``needs``."""
    return [FORMS[each] for each in each_of(needs)]


def check_needs(name: str, needs: Needs) -> None:
    """Raises ValueError if ``needs`` of a metric has anything else than keys of :data:`FORMS`."""
    for each in each_of(needs):
        if each not in FORMS:
            raise ValueError(
                f"needs={each!r} is none of {', '.join(map(repr, FORMS))}: state the predictions "
                f"that {name!r} takes"
            )
