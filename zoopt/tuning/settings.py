"""The settings of a run, each documented once: here, and so in ``zoopt tune --help``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral
from typing import Any, Literal

from zoopt import registry
from zoopt.support.names import unknown

AUTO = "auto"
"""A rate that the run finds itself; see :mod:`zoopt.tuning.search.auto`."""


_WHOLE = (
    "n", "n_final", "steps", "batch_size", "eval_every", "calibrate_on", "rollbacks", "patience",
    "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to tune.

    Args:
        objective: the number that is tuned, by name (``zoopt list objectives``) or dotted path,
            either with arguments where it takes some: "words(target=40)".
        estimator: which probes estimate the gradient (``zoopt list estimators``).
        estimator_options: further options of the estimator, as {clip: 100} for nspsa.
        n: directions per step, of which two-sided estimators evaluate two probes each; 0 takes the
            estimator's own number.
        n_final: directions in the last step, to which n changes linearly; 0 keeps n.
        eps: perturbation scale of a probe, in units of the parameters; "auto" measures what suits
            the model and the objective.
        eps_schedule: how eps changes: "constant", "linear" to a tenth, "power" (Spall's k^-0.101).
        direction: family of the directions (``zoopt list directions``).
        engine: how probes are evaluated; "auto" leaves it to the estimator.
        update: update rule (``zoopt list updates``).
        update_options: options of the update rule, as {beta: 0.5} for momentum.
        lr: initial learning rate; "auto" tries several for a third of the run each and continues
            the best trial.
        schedule: how the learning rate changes: "constant", "linear" or "cosine" to zero, or
            "power", Spall's (k + a)^-0.602.
        clip_ratio: clip the estimate's coefficients at this multiple of their running median; 0
            disables.
        rollbacks: how often a diverging run may go back and continue at half the learning rate.
        weight_decay: decoupled decay of tensors with two dimensions or more.
        params: name patterns of the parameters to tune; all trainable ones if empty.
        steps: updates.
        batch_size: training examples per step.
        eval_every: steps between evaluations on the development set, each a possible checkpoint.
        calibrate_on: training examples that choose the class offsets of the calibrated baseline.
        seed: seed of directions, batches and sampling.
        surrogate: smooth objective to start with; the objective's own one if empty.
        surrogate_steps: steps over which its weight falls linearly from 1 to 0; 0 disables.
        patience: stop after this many evaluations in a row without a better development score; 0
            disables.
        sinks: where the metrics go besides metrics.jsonl: tensorboard, wandb, mlflow, csv.
    """

    objective: str = "accuracy"
    estimator: str = "mezo"
    estimator_options: Mapping[str, float] = field(default_factory=dict)
    n: int = 0
    n_final: int = 0
    eps: float | Literal["auto"] = 1e-3
    eps_schedule: str = "constant"
    direction: str = "rademacher"
    engine: str = "auto"
    update: str = "sgd"
    update_options: Mapping[str, float] = field(default_factory=dict)
    lr: float | Literal["auto"] = 1e-6
    schedule: str = "linear"
    clip_ratio: float = 10.0
    rollbacks: int = 5
    weight_decay: float = 0.0
    params: tuple[str, ...] = ()
    steps: int = 200
    batch_size: int = 16
    eval_every: int = 50
    calibrate_on: int = 400
    seed: int = 0
    surrogate: str = ""
    surrogate_steps: int = 0
    patience: int = 0
    sinks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _WHOLE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name}={value!r} must be a whole number")
            object.__setattr__(self, name, int(value))
        if not self.n:
            object.__setattr__(self, "n", registry.own_n(self.estimator))
        for name in ("n", "steps", "batch_size", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("n_final", "patience", "clip_ratio", "rollbacks"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}={getattr(self, name)} must be 0 (none) or more")
        for name in ("eps", "lr"):
            value = getattr(self, name)
            if value != AUTO and not (
                isinstance(value, float | int) and math.isfinite(value) and value > 0
            ):
                raise ValueError(f"{name}={value!r} must be a positive number, or {AUTO!r}")
        if self.surrogate and self.surrogate_steps < 1:
            raise ValueError(
                f"surrogate={self.surrogate!r} stands in for the objective for no steps: say for "
                f"how many, as in surrogate_steps={max(1, self.steps // 2)}"
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(unknown("schedule", self.schedule, SCHEDULES))
        if self.eps_schedule not in EPS_SCHEDULES:
            raise ValueError(unknown("eps_schedule", self.eps_schedule, EPS_SCHEDULES))

    @property
    def automatic(self) -> bool:
        """Whether a rate is still to be found."""
        return AUTO in (self.lr, self.eps)

    def lr_at(self, step: int) -> float:
        """The learning rate of an update, by the number of updates before it."""
        return float(self.lr) * SCHEDULES[self.schedule](step, self.steps)

    def eps_at(self, step: int) -> float:
        """The perturbation scale of a step's probes."""
        return float(self.eps) * EPS_SCHEDULES[self.eps_schedule](step, self.steps)

    def n_at(self, step: int) -> int:
        """The number of directions of a step."""
        if not self.n_final or self.steps == 1:
            return self.n
        return round(self.n + (self.n_final - self.n) * step / (self.steps - 1))

    def surrogate_share(self, step: int) -> float:
        """The surrogate's share in what a step tunes."""
        return max(0.0, 1.0 - step / self.surrogate_steps) if self.surrogate_steps else 0.0


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, steps: 1.0,
    "linear": lambda step, steps: 1.0 - step / steps,
    "cosine": lambda step, steps: 0.5 * (1.0 + math.cos(math.pi * step / steps)),
    "power": lambda step, steps: (1.0 + step / (1.0 + steps / 10)) ** -0.602,
}
"""Factor of the learning rate by the updates before and in all.

"power" is a/(A + k + 1)^0.602 with A a tenth of the steps (J. C. Spall 1998, "Implementation of the
simultaneous perturbation algorithm for stochastic optimization", IEEE TAES 34(3)).
"""

EPS_SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, steps: 1.0,
    "linear": lambda step, steps: 1.0 - 0.9 * step / steps,
    "power": lambda step, steps: (step + 1.0) ** -0.101,
}
"""Factor of ε by the updates before and in all; "power" is from the same page of Spall's."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What the model is asked.

    Args:
        kind: "verbalizer" (a causal LM says a word), "masked" (a masked LM does), "multiple_choice"
            (a causal LM finds a choice likeliest), "generation" (a causal LM writes a text), "head"
            (a classification head), "regression" (one output), "similarity" (cosine of two
            embeddings), or "paper" (a task of MeZO's paper by name).
        name: for "paper", which one, as sst2; its data come from the hub if data.train is empty.
        masked: for "paper", whether the model is a masked LM.
        template: text with the data's columns in braces; for "masked" {mask} and for
            "multiple_choice" {choice} stand where the word or choice comes, and for "similarity"
            {text} is each of the two columns.
        verbalizer: for "verbalizer" and "masked", the word of each label, in the order of the
            classes.
        choices: for "multiple_choice", the column with the list of choices, or a template for each
            label, as {"0": "{choice1}", "1": "{choice2}"}.
        labels: for "head", the labels in the order of the outputs.
        columns: for "similarity", the two columns that are compared.
        target: column that holds the label, value or reference text; for "generation" there may
            be none.
        max_length: longest input in tokens, 0 for the model's; longer ones lose their start.
        forward_size: rows in one forward: examples, or their choices or pairs' halves.
        max_new_tokens: for "generation", the longest completion in tokens.
        decoding: for "generation", further arguments of generate(), as {do_sample: true}.
        stop: for "generation", text before which completions are cut off.
    """

    kind: str = "verbalizer"
    name: str = ""
    masked: bool = False
    template: str = "{text}"
    verbalizer: Mapping[str, str] = field(default_factory=dict)
    choices: str | Mapping[str, str] = "choices"
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ("sentence1", "sentence2")
    target: str = "label"
    max_length: int = 0
    forward_size: int = 32
    max_new_tokens: int = 64
    decoding: Mapping[str, Any] = field(default_factory=dict)
    stop: str = ""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the examples are: CSV, JSONL or Parquet files, or data sets of the hub.

    A data set of the hub is owner/name:split, or owner/name/configuration:split.

    Args:
        train: training examples; may be empty where the task names its data.
        dev: development examples; those cut from the end of train if empty.
        test: test examples, for the report only.
        dev_size: use so many of the development examples; all if 0. Cut from train if dev is empty.
        test_size: use so many of the test examples; all if 0.
    """

    train: str = ""
    dev: str = ""
    test: str = ""
    dev_size: int = 0
    test_size: int = 0


@dataclass(frozen=True, kw_only=True)
class Job(Settings):
    """A whole run: what ``zoopt tune`` reads from a file.

    Args:
        model: a folder or hub name for ``from_pretrained``.
        task: what the model is asked.
        data: where the examples are.
        dtype: dtype of the weights.
        run_dir: the run's folder; a run that is there already is resumed.
    """

    model: str
    task: TaskSettings
    data: DataSettings = field(default_factory=DataSettings)
    dtype: str = "float32"
    run_dir: str = "runs/run"

    def settings(self) -> Settings:
        """The part that says how to tune."""
        return Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})


def plain(settings: Any) -> dict[str, Any]:
    """A settings tree as JSON would give it back."""
    plain: dict[str, Any] = {}
    for name, value in asdict(settings).items():
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


def settings_from(given: Mapping[str, Any]) -> Settings:
    """Settings from keyword arguments, in which members of the axes may be objects."""
    known = {f.name for f in fields(Settings)}
    for name in given:
        if name not in known:
            raise TypeError(unknown("setting", name, known))
    made = dict(given)
    if not isinstance(made.get("estimator", ""), str):
        estimator = registry.make_estimator(made["estimator"])
        made["estimator"], options = _by_name("estimator", estimator)
        further = {k: options.pop(k) for k in set(options) - known if options[k] is not None}
        made["estimator_options"] = {**further, **made.get("estimator_options", {})}
        made = {**{name: value for name, value in options.items() if name in known}, **made}
    if not isinstance(made.get("update", ""), str):
        made["update"], options = _by_name("update", made["update"])
        made["update_options"] = {**options, **made.get("update_options", {})}
    if not isinstance(made.get("direction", ""), str):
        made["direction"] = made["direction"].name
    if isinstance(made.get("params"), Mapping) or callable(made.get("params")):
        raise TypeError(
            "params of a run are name patterns, for one lr and one eps: groups with options of "
            "their own, and predicates, are for zoopt.ZOOptimizer and zoopt.ZOTrainer"
        )
    for name in ("params", "sinks"):
        if name in made:
            chosen = made[name]
            made[name] = (chosen,) if isinstance(chosen, str) else tuple(chosen or ())
    return Settings(**made)


def _by_name(axis: str, member: Any) -> tuple[str, dict[str, Any]]:
    """A member's name and options, from which a resumed run makes it again."""
    options = registry.describe(member)
    name = options.pop("name")
    if name not in registry.ESTIMATORS and name not in registry.UPDATES:
        raise TypeError(
            f"{axis}={name} is of a class that is not registered, so a run could not be resumed or "
            "replayed with it; add it to zoopt/registry.py, or step zoopt.ZOOptimizer yourself"
        )
    return name, options
