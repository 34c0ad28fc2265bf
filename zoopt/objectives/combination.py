"""Several metrics as one number: weighted sums, and constraints as penalties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from zoopt.objectives.expression import parse
from zoopt.objectives.metric import Metric, Parts

Lookup = Callable[[str], Metric]


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric, and the penalty for violating it.

    Attributes:
        metric: the metric that is bounded.
        bound: the bound; the value may equal it.
        at_most: whether it is an upper bound; otherwise it is a lower bound.
        weight: the penalty for one unit of violation, in units of the objective.
    """

    metric: Metric
    bound: float
    at_most: bool
    weight: float = 1.0

    def penalty(self, value: float) -> float:
        """weight · max(0, violation)."""
        beyond = value - self.bound if self.at_most else self.bound - value
        return self.weight * max(0.0, beyond)

    def __str__(self) -> str:
        order = "<=" if self.at_most else ">="
        weight = "" if self.weight == 1.0 else f" weight {_exact(self.weight)}"
        return f"{self.metric.name} {order} {_exact(self.bound)}{weight}"


@dataclass(frozen=True)
class Combination(Metric):
    """Σ_i w_i m_i, worsened by the penalty Σ_j λ_j max(0, violation_j).

    The penalty is the exact (ℓ1) penalty: for λ above a problem-dependent threshold, the optimum
    with it is the optimum within the bounds (Nocedal and Wright 2006, *Numerical Optimization*,
    section 17.2). Create it with :func:`zoopt.combined`.

    Attributes:
        terms: (weight, metric) pairs; the sum has the direction of the first metric.
        constraints: the bounds.
    """

    terms: tuple[tuple[float, Metric], ...] = ()
    constraints: tuple[Constraint, ...] = field(default=())

    @classmethod
    def make(
        cls, terms: Sequence[tuple[float, Metric]], constraints: Sequence[Constraint] = ()
    ) -> Combination:
        """The combination of terms and constraints, named by its expression."""
        up = terms[0][1].higher_is_better
        sign = 1.0 if up else -1.0
        metrics = [metric for _, metric in terms] + [each.metric for each in constraints]

        def function(predictions: Parts, references: Parts) -> float:
            """Weighted sum, worsened by the penalties for violated bounds."""
            views = zip(metrics, predictions.items, references.items, strict=True)
            values = [metric(guess, truth) for metric, guess, truth in views]
            bounded = values[len(terms) :]
            total = sum(w * value for (w, _), value in zip(terms, values, strict=False))
            kept = zip(constraints, bounded, strict=True)
            return total - sign * sum(each.penalty(value) for each, value in kept)

        return cls(
            name=_written(terms, constraints),
            function=function,
            higher_is_better=up,
            needs=tuple(metric.needs for metric in metrics),
            piecewise_constant=all(metric.piecewise_constant for metric in metrics),
            from_base=any(metric.from_base for metric in metrics),
            terms=tuple(terms),
            constraints=tuple(constraints),
        )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of its terms and constraints, in order."""
        return (*(metric for _, metric in self.terms), *(c.metric for c in self.constraints))


def combined(
    text: str, metrics: Mapping[str, Metric], lookup: Lookup, known: Iterable[str] = ()
) -> Metric:
    """The metric that an expression describes; see :func:`zoopt.combined`.

    Args:
        text: the expression.
        metrics: metrics that it names.
        lookup: finds the others.
        known: names of which ``lookup`` finds the metric, as for
            :func:`zoopt.objectives.expression.parse`.
    """

    def named(name: str) -> Metric:
        return replace(metrics[name], name=name) if name in metrics else lookup(name)

    expression = parse(text, {*known, *metrics})
    terms = [(weight, named(name)) for weight, name in expression.terms]
    constraints = [
        Constraint(named(each.name), each.bound, each.at_most, each.weight)
        for each in expression.bounds
    ]
    for weight, metric in terms[1:]:
        if weight > 0 and metric.higher_is_better != terms[0][1].higher_is_better:
            raise ValueError(
                f"in {text!r} {metric.name} is added to {terms[0][1].name}, but higher is "
                f"better for only one of them: write '- {metric.name}'"
            )
    return Combination.make(terms, constraints)


def _written(terms: Sequence[tuple[float, Metric]], constraints: Sequence[Constraint]) -> str:
    text = ""
    for weight, metric in terms:
        size = "" if abs(weight) == 1.0 else f"{_exact(abs(weight))} * "
        joint = (" - " if weight < 0 else " + ") if text else ""
        text += f"{joint}{size}{metric.name}"
    if constraints:
        text += " subject to " + " and ".join(map(str, constraints))
    return text


def _exact(number: float) -> str:
    """A number as text that is read as the same number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def blend(objective: Metric, surrogate: Metric, share: float) -> Metric:
    """(1 − share) · objective + share · surrogate, both in the objective's direction.

    A run tunes it while it moves from a smooth surrogate to the objective itself.

    Args:
        objective: the objective.
        surrogate: its smooth surrogate.
        share: weight of the surrogate, from 0 to 1.
    """
    if share <= 0.0:
        return objective
    turn = 1.0 if surrogate.higher_is_better == objective.higher_is_better else -1.0
    mixed = Combination.make([(1.0 - share, objective), (turn * share, surrogate)])
    if share >= 1.0:
        mixed = Combination.make([(turn, surrogate)])
    return replace(mixed, higher_is_better=objective.higher_is_better)
