"""The command line: ``zoopt tune | eval | inspect | diff | replay | merge | list | recipes``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from zoopt import registry, trajectory
from zoopt.bench import cli as bench
from zoopt.engines import UnseenParameterError
from zoopt.interfaces import NonFiniteLossError
from zoopt.objectives.metric import Metric
from zoopt.objectives.registry import objectives, packages_with_objectives
from zoopt.objectives.resolve import paths, resolve
from zoopt.parameters.placement import SpreadError
from zoopt.probes.randomness import seeded
from zoopt.probes.surroundings import evaluation_mode
from zoopt.recipes import RECIPES
from zoopt.runs import cli as runs
from zoopt.support.blame import own_traceback
from zoopt.support.heap import keep_freed_memory
from zoopt.support.imports import import_from_here
from zoopt.support.names import joined
from zoopt.support.parser import Parser
from zoopt.tasks import TASKS, paper_task, references_for
from zoopt.trajectory.checkpoint import DamagedCheckpointError
from zoopt.tuning import sinks
from zoopt.tuning.dryrun import DryRun
from zoopt.tuning.faults.fitting import TooLittleMemoryError
from zoopt.tuning.job import Job, job_from
from zoopt.tuning.loading import load_model, make_task
from zoopt.tuning.report.evaluation import compare, reported_metrics
from zoopt.tuning.settings import plain
from zoopt.tuning.tune import tune

_LISTS: dict[str, Callable[[], dict[str, Any]]] = {
    "objectives": lambda: {joined(n, m.arguments): m for n, m in objectives().items()},
    "estimators": lambda: dict(registry.ESTIMATORS),
    "directions": lambda: dict(registry.DIRECTIONS),
    "engines": lambda: dict(registry.ENGINES),
    "updates": lambda: dict(registry.UPDATES),
    "tasks": lambda: {**TASKS, "paper": paper_task},
}

_MISTAKES = (
    KeyError,
    ValueError,
    NotImplementedError,
    TypeError,
    OSError,
    ImportError,
    DamagedCheckpointError,
    NonFiniteLossError,
    SpreadError,
    TooLittleMemoryError,
    UnseenParameterError,
    trajectory.TrajectoryError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_path=False)]
    )
    parser, commands = _parser()
    # A config file may come first, as in `zoopt tune reviews.yaml --steps 200`.
    if len(arguments) > 1 and arguments[0] in ("tune", "eval") and arguments[1][:1] != "-":
        arguments.insert(1, "--config")
    chosen = parser.parse_args(arguments)
    keep_freed_memory()
    try:
        return commands[chosen.subcommand](chosen[chosen.subcommand])
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    except _MISTAKES as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.stderr.write(own_traceback(error, {"zoopt", *packages_with_objectives()}))
        print(f"zoopt {chosen.subcommand}: {message}", file=sys.stderr)
        return 2


def _parser() -> tuple[Parser, dict[str, Callable[[Namespace], int]]]:
    parser = Parser(
        prog="zoopt",
        description="Tune any torch model against any number, with forward passes alone.",
    )
    sub = parser.add_subcommands()

    tuning = _job_parser()
    tuning.add_argument("--quiet", action="store_true", help="no progress display")
    tuning.add_argument(
        "--dry-run",
        action="store_true",
        help="measure one step, print the run's parameters, memory and time, and write nothing",
    )
    sub.add_subcommand("tune", tuning, help="tune a model, or resume a run")

    evaluating = _job_parser()
    evaluating.add_argument("--split", default="test", help="train, dev or test")
    evaluating.add_argument(
        "--weights", default="", help="another folder to load the model from, such as RUN/best"
    )
    sub.add_subcommand("eval", evaluating, help="score a model on a task")

    of_runs = runs.add_to(sub)

    listing = Parser()
    listing.add_argument("what", choices=list(_LISTS), help="what to list")
    sub.add_subcommand("list", listing, help="list objectives, estimators, etc. by name")

    bench.add_to(sub)
    sub.add_subcommand("recipes", Parser(), help="list published settings with their sources")
    return parser, {
        "tune": _tune,
        "eval": _eval,
        **of_runs,
        "list": _list,
        "bench": bench.main,
        "recipes": _recipes,
    }


def _job_parser() -> Parser:
    parser = Parser()
    parser.add_argument("--config", action="config", help="YAML file with any options below")
    parser.add_class_arguments(Job)
    parser.add_argument(
        "--trust",
        action="store_true",
        help="allow an objective given as package.module:name, which runs that module's code",
    )
    return parser


def _job(chosen: Namespace) -> Job:
    values = chosen.clone().as_dict()
    if paths(values["objective"]) and not values["trust"]:
        raise ValueError(
            f"objective {values['objective']!r} runs that module's code: add --trust to allow it"
        )
    if values["trust"]:
        import_from_here()
    return job_from({f.name: values[f.name] for f in fields(Job)})


def _tune(chosen: Namespace) -> int:
    job = _job(chosen)
    resolve(job.objective)  # raises errors before the model is loaded
    sinks.check(job.sinks)
    model, tokenizer = load_model(job)
    settings = job.settings()
    if chosen.dry_run:
        print(yaml.safe_dump(plain(job), sort_keys=False, allow_unicode=True))
        task = make_task(job, tokenizer)
        found = DryRun.of(model, task, resolve(job.objective), settings)
        table = Table(box=None, show_header=False)
        for row in found.account().items():
            table.add_row(*row)
        Console(markup=False).print(table)
        return 0
    result = tune(
        model,
        task=make_task(job, tokenizer),
        run_dir=Path(job.run_dir).expanduser(),
        job=plain(job),
        quiet=chosen.quiet,
        **vars(settings),
    )
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(result.run_dir / "best")
    return 130 if "interrupted" in result.stop else 0


def _eval(chosen: Namespace) -> int:
    job = _job(chosen)
    model, tokenizer = load_model(job, chosen.weights or None)
    task = make_task(job, tokenizer)
    if chosen.split not in ("train", "dev", "test"):
        raise ValueError(f"--split {chosen.split!r} must be train, dev or test")
    examples = getattr(task, chosen.split)
    if not examples:
        raise ValueError(f"there are no {chosen.split} examples: set data.{chosen.split}")
    metrics = reported_metrics(task, resolve(job.objective))
    if any(metric.from_base for metric in metrics):
        base = load_model(job, None)[0] if chosen.weights else model
        with evaluation_mode(base), seeded(job.seed):
            task.anchor(base, examples)
        del base
    with evaluation_mode(model), seeded(job.seed):
        scores = task.predict(model, examples)
    table = Table(title=f"{len(examples)} {chosen.split} examples, 95 % bootstrap intervals")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for metric in metrics:
        references = references_for(task, metric, examples)
        with seeded(job.seed):
            found = compare(metric, {"model": scores}, references, task.clusters(examples))
        table.add_row(metric.name, str(found.values["model"]))
    Console(markup=False).print(table)
    return 0


def _list(chosen: Namespace) -> int:
    members = sorted(_LISTS[chosen.what]().items())
    table = Table(box=None)
    for head in ("name", *(("better", "range", "takes") if chosen.what == "objectives" else ())):
        table.add_column(head, no_wrap=True)
    table.add_column("description")
    for name, member in members:
        if isinstance(member, Metric):
            low, high = member.bounds
            better = "higher" if member.higher_is_better else "lower"
            table.add_row(name, better, f"{low:g} to {high:g}", str(member.needs), member.about)
        else:
            table.add_row(name, ((member.__doc__ or "").strip().splitlines() or [""])[0])
    Console(markup=False).print(table)
    return 0


def _recipes(chosen: Namespace) -> int:
    table = Table(box=None)
    table.add_column("recipe", no_wrap=True)
    for number in ("lr", "eps", "decay", "batch", "steps"):
        table.add_column(number, justify="right")
    for text in ("what", "source"):
        table.add_column(text)
    for name, recipe in RECIPES.items():
        rates = " ".join(f"{lr:g}" for lr in recipe.lr)
        numbers = (recipe.eps, recipe.weight_decay, recipe.batch_size, recipe.steps)
        table.add_row(name, rates, *(f"{n:g}" for n in numbers), recipe.about, recipe.source)
    Console(markup=False).print(table)
    return 0
