"""Rows that tune weights: what of the model, on which number, by which optimizer."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

import zoopt
from benchmarks import models
from benchmarks.finetune.prepended import SoftPrompt
from benchmarks.finetune.scoring import BATCH
from zoopt import baselines
from zoopt.bench.contestants import BackPropagation
from zoopt.directions.kernel import compilation
from zoopt.tasks import TaskObjective
from zoopt.tuning.data import Batches

BACKWARD = 2
"""Forward passes that a backward pass counts as."""

DIMENSIONS = 32
"""Of the subspaces that searches are given."""

FIXED = 32
"""Training sentences that searches compare their candidates on, as many as in BBT."""

MARKS = (1 / 3, 2 / 3)
"""Shares of the budget at which the development sentences are scored, besides its end."""


@dataclass
class Part:
    """A model of which a part is tuned.

    Attributes:
        model: what is asked.
        params: name patterns of the part; all trainable parameters if empty.
        cast: whether forwards are under autocast to bf16.
    """

    model: torch.nn.Module
    params: tuple[str, ...] = ()
    cast: bool = False


def everything(scale, question):
    """All weights, in bf16."""
    model, tokenizer = scale.load(torch.bfloat16)
    return Part(model), tokenizer


def masters(scale, question):
    """All weights, in fp32, with forwards under autocast to bf16."""
    model, tokenizer = scale.load(torch.float32)
    return Part(model, cast=True), tokenizer


def norms(scale, question):
    """The norms of the upper third of the layers, and the last one."""
    model, tokenizer = scale.load(torch.bfloat16)
    count = model.config.num_hidden_layers
    layers = range(2 * count // 3, count)
    patterns = (*(f"model.layers.{layer}.*norm.weight" for layer in layers), "model.norm.weight")
    return Part(model, patterns), tokenizer


def lora(scale, question):
    """Adapters of rank 8 in fp32 on queries and values of a model in bf16."""
    model, tokenizer = scale.load(torch.bfloat16)
    return Part(models.with_lora(model)), tokenizer


def prompt(scale, question):
    """Embeddings in fp32 before every text, of a model in bf16."""
    model, tokenizer = scale.load(torch.bfloat16)
    ids = tokenizer(question.instruction, add_special_tokens=False)["input_ids"]
    return Part(SoftPrompt(model, ids)), tokenizer


@dataclass(frozen=True)
class Tuned:
    """A row.

    Attributes:
        title: what tables call it.
        part: loads the model, and says what of it is tuned.
        make: (part, rate, count, seed) to what makes ``count`` steps.
        rates: what is tried of the one number that matters most to it.
        sentences: in one call of the closure.
        calls: of the closure in one step.
        fixed: whether all steps have the same sentences.
        objective: what is tuned.
        gradient: whether it takes the objective's gradient.
    """

    title: str
    part: Callable
    make: Callable
    rates: tuple[float, ...]
    sentences: int = BATCH
    calls: int = 1
    fixed: bool = False
    objective: str = "cross_entropy"
    gradient: bool = False

    @property
    def cost(self):
        """Forward passes of ``BATCH`` sentences that a step counts as."""
        return self.sentences // BATCH * (self.calls + BACKWARD * self.gradient)


class Scheduled:
    """An optimizer whose learning rate falls linearly to 0.

    Args:
        steps: what is stepped, with the torch optimizer that it is or has.
        count: steps there will be.
    """

    def __init__(self, steps, optimizer, count):
        self.steps, self.count, self.taken = steps, count, 0
        self.groups = optimizer.param_groups
        self.rates = [group["lr"] for group in self.groups]
        self.algorithm = getattr(steps, "algorithm", "zoopt MeZO")

    def step(self, closure):
        """A step at the rate of its place."""
        for group, rate in zip(self.groups, self.rates, strict=True):
            group["lr"] = rate * (1 - self.taken / self.count)
        self.taken += 1
        return self.steps.step(closure)

    def settle(self):
        """Makes the weights what the optimizer would have one use."""
        self.steps.settle()


def adamw(part, rate, count, seed):
    """AdamW along the gradient."""
    chosen = BackPropagation(part.model, rate)
    return Scheduled(chosen, chosen.optimizer, count)


def mezo(part, rate, count, seed, eps, maximize=False):
    """MeZO."""
    optimizer = zoopt.ZOOptimizer(
        part.model,
        rate,
        estimator=zoopt.MeZO(eps=eps),
        direction="rademacher",
        params=part.params or None,
        maximize=maximize,
        seed=seed,
    )
    return Scheduled(optimizer, optimizer, count)


SUBSPACE: dict[str, Any] = {"dimension": DIMENSIONS, "direction": "rademacher"}


def ngopt(part, rate, count, seed):
    """nevergrad's own choice among its optimizers, in a random subspace; the rate is σ."""
    return baselines.nevergrad("NGOpt", part.model, budget=count, sigma=rate, seed=seed, **SUBSPACE)


def cma(part, rate, count, seed):
    """pycma's CMA-ES in a random subspace; the rate is σ."""
    return baselines.pycma(part.model, sigma=rate, seed=seed, **SUBSPACE)


def _on_accuracy(title, part, eps, rates):
    make = partial(mezo, eps=eps, maximize=True)
    return Tuned(title, part, make, rates, sentences=64, calls=2, objective="accuracy")


def _on_loss(title, part, eps, rates):
    return Tuned(title, part, partial(mezo, eps=eps), rates, calls=2)


def _search(title, part, make):
    return Tuned(title, part, make, (0.3, 1.0, 3.0), sentences=FIXED, fixed=True)


TUNED = {
    "adamw": Tuned("AdamW, all weights", masters, adamw, (1e-5, 3e-5, 1e-4), gradient=True),
    "adamw-lora": Tuned("AdamW, LoRA", lora, adamw, (3e-4, 1e-3, 3e-3), gradient=True),
    "mezo": _on_loss("MeZO, all weights", everything, 1e-3, (4e-6, 1.6e-5, 6.4e-5)),
    "mezo-norms": _on_loss("MeZO, norms of the upper third", norms, 3e-2, (1.25e-3, 5e-3, 2e-2)),
    "mezo-lora": _on_loss("MeZO, LoRA", lora, 1e-2, (1e-3, 4e-3, 1.6e-2)),
    "mezo-accuracy": _on_accuracy(
        "MeZO on accuracy, all weights", everything, 3e-3, (1.6e-5, 6.4e-5, 2.56e-4)
    ),
    "mezo-norms-accuracy": _on_accuracy(
        "MeZO on accuracy, norms of the upper third", norms, 1e-1, (5e-3, 2e-2, 8e-2)
    ),
    "mezo-lora-accuracy": _on_accuracy(
        "MeZO on accuracy, LoRA", lora, 3e-2, (4e-3, 1.6e-2, 6.4e-2)
    ),
    "nevergrad-lora": _search("nevergrad NGOpt, subspace of LoRA", lora, ngopt),
    "nevergrad-prompt": _search("nevergrad NGOpt, subspace of a soft prompt", prompt, ngopt),
    "pycma-lora": _search("pycma CMA-ES, subspace of LoRA", lora, cma),
    "pycma-prompt": _search("pycma CMA-ES, subspace of a soft prompt", prompt, cma),
}


@dataclass
class Run:
    """A row's optimizer at work: it spends a budget, and counts what it spent.

    Attributes:
        taken: steps so far.
        stop: why it ended before its budget, if it did.
    """

    row: Tuned
    part: Part
    task: zoopt.Verbalizer
    rate: float
    budget: int
    seed: int
    taken: int = 0
    stop: str = ""
    steps: Any = field(default=None, init=False)

    def __post_init__(self):
        self._times = []
        self.batches = Batches(self.task, self.row.sentences, self.seed)
        self.objective = TaskObjective(self.task, zoopt.get_objective(self.row.objective))

    @property
    def forwards(self):
        """Forward passes of ``BATCH`` sentences so far."""
        return self.taken * self.row.cost

    @property
    def seconds(self):
        """CPU seconds of the steps; those that compiled count as the mean of the others."""
        return self.taken * sum(self._times) / max(1, len(self._times))

    def to(self, forwards):
        """Steps on as long as the forward passes do not exceed so many."""
        while not self.stop and self.forwards + self.row.cost <= forwards:
            self._step()

    def _step(self):
        compiling, started = compilation.seconds(), time.process_time()
        if self.steps is None:
            count = self.budget // self.row.cost
            self.steps = self.row.make(self.part, self.rate, count, self.seed)
        batch = self.batches(0 if self.row.fixed else self.taken)
        try:
            self.steps.step(lambda: self._asked(batch))
        except ArithmeticError as error:
            self.stop = f"{type(error).__name__} after {self.forwards} forwards"
        self.taken += 1
        if compilation.seconds() == compiling:
            self._times.append(time.process_time() - started)

    def _asked(self, batch):
        with self._precision():
            if not self.row.gradient:
                return self.objective.value(self.part.model, batch)
            logits = self.task.forward(self.part.model, batch)
        truth = torch.from_numpy(self.task.references(batch))
        return torch.nn.functional.cross_entropy(logits.float(), truth)

    def predict(self, rows):
        """Class scores at the weights that the optimizer would have one use."""
        if self.steps is not None:
            self.steps.settle()
        with self._precision():
            return self.task.predict(self.part.model, rows)

    def _precision(self):
        cast = torch.autocast("cpu", torch.bfloat16)
        return cast if self.part.cast else contextlib.nullcontext()
