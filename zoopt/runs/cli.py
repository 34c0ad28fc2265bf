"""The commands on runs: ``zoopt inspect | diff | replay | merge``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from zoopt import trajectory
from zoopt.runs.difference import difference
from zoopt.runs.inspecting import RunFiles, account
from zoopt.runs.merging import CAVEAT, merge
from zoopt.support.parser import Parser
from zoopt.trajectory import checkpoint
from zoopt.tuning.job import job_from
from zoopt.tuning.loading import load_model


def add_to(sub: Any) -> dict[str, Callable[[Namespace], int]]:
    """Adds the commands to a parser's; returns the function of each."""
    inspecting = Parser()
    inspecting.add_argument("run", help="folder of the run")
    sub.add_subcommand("inspect", inspecting, help="show what happened in a run")

    comparing = Parser()
    comparing.add_argument("run", help="folder of a run")
    comparing.add_argument("other", help="folder of another run")
    sub.add_subcommand("diff", comparing, help="show where two runs differ; status 1 if they do")

    replaying = _builder()
    replaying.add_argument("run", help="folder of the run")
    replaying.add_argument("--to-step", default="best", help="a step number, best or last")
    sub.add_subcommand("replay", replaying, help="rebuild tuned weights from the base and a log")

    merging = _builder()
    merging.add_argument("runs", nargs="+", help="folders of runs on the same base model")
    sub.add_subcommand("merge", merging, help="add the updates of several runs to one model")
    return {"inspect": _inspect, "diff": _diff, "replay": _replay, "merge": _merge}


def _builder() -> Parser:
    parser = Parser()
    parser.add_argument("--model", default="", help="the base model, if it has moved")
    parser.add_argument("--out", required=True, help="folder to save the model to")
    return parser


def _inspect(chosen: Namespace) -> int:
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for what, words in account(RunFiles.read(chosen.run)).items():
        table.add_row(what, words)
    Console(markup=False).print(table)
    return 0


def _diff(chosen: Namespace) -> int:
    runs = RunFiles.read(chosen.run), RunFiles.read(chosen.other)
    found = difference(*runs)
    if not found:
        print(f"{runs[0].path} and {runs[1].path} have the same settings, steps and scores")
        return 0
    table = Table(box=None)
    table.add_column(no_wrap=True)
    for run in runs:
        table.add_column(str(run.path), overflow="fold")
    for what, values in found.items():
        table.add_row(what, *values)
    Console(markup=False).print(table)
    return 1


def _replay(chosen: Namespace) -> int:
    out = _empty(chosen.out)
    model, tokenizer = _base(chosen.run, chosen.model)
    step = int(chosen.to_step) if str(chosen.to_step).isdigit() else chosen.to_step
    applied = trajectory.replay(model, Path(chosen.run).expanduser(), step)
    return _save(model, tokenizer, out, f"{applied} updates of {chosen.run} applied")


def _merge(chosen: Namespace) -> int:
    out = _empty(chosen.out)
    model, tokenizer = _base(chosen.runs[0], chosen.model)
    applied = merge(model, [Path(run).expanduser() for run in chosen.runs])
    print(CAVEAT)
    return _save(model, tokenizer, out, f"{applied} updates of {len(chosen.runs)} runs")


def _base(run: str, moved: str) -> tuple[torch.nn.Module, Any]:
    """The model that a run started from, and its tokenizer."""
    config = Path(run).expanduser() / "config.yaml"
    if not config.exists():
        raise FileNotFoundError(f"{run} has no config.yaml: is it the folder of a run?")
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    if "model" not in values:
        raise ValueError(
            f"{run} was tuned from Python, so its config names no model: load the base model and "
            "call zoopt.replay(model, run), or zoopt.merge(model, runs)"
        )
    return load_model(job_from(values), moved or None)


def _empty(out: str) -> Path:
    """The folder to save a model to; raises unless it is missing or empty."""
    folder = Path(out).expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(
            f"--out {out} exists and is not an empty folder, so the model would overwrite its "
            "contents: choose a new folder, or empty it"
        )
    return folder


def _save(model: torch.nn.Module, tokenizer: Any, folder: Path, done: str) -> int:
    checkpoint.export(model, folder)
    tokenizer.save_pretrained(folder)
    print(f"{done}; model in {folder}")
    return 0
