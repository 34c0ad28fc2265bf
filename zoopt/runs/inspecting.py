"""Summarizes a run from its folder, read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zoopt import trajectory
from zoopt.support.units import in_bytes, in_time
from zoopt.tuning.folder.course import Course
from zoopt.tuning.folder.metrics_file import entries_of
from zoopt.tuning.folder.run_folder import flat
from zoopt.tuning.folder.scores import best_of
from zoopt.tuning.job import Job, TaskSettings
from zoopt.tuning.settings import plain

_MANY = 8
"""Maximum number of rollbacks, and of out-of-memory events, that are listed."""


@dataclass(frozen=True)
class RunFiles:
    """The contents of a run's files.

    Attributes:
        path: the folder.
        config: the configuration, with nested names joined by dots.
        log: the trajectory.
        metrics: the lines of ``metrics.jsonl``.
    """

    path: Path
    config: dict[str, Any]
    log: trajectory.Log
    metrics: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: str | Path) -> RunFiles:
        """Reads a run's folder.

        Raises:
            TrajectoryError: the folder does not hold a run.
        """
        path = Path(folder).expanduser()
        log = trajectory.read(path / trajectory.FILENAME)
        if log is None:
            raise trajectory.TrajectoryError(
                f"{path} has no {trajectory.FILENAME}: is it the folder of a run?"
            )
        config, metrics = path / "config.yaml", path / "metrics.jsonl"
        return cls(
            path,
            flat(yaml.safe_load(config.read_text(encoding="utf-8"))) if config.exists() else {},
            log,
            entries_of(metrics) if metrics.exists() else [],
        )

    @property
    def scores(self) -> dict[int, float]:
        """Development scores by step, without those rolled back."""
        evaluations = Course(self.metrics).evaluations
        return {step: score for step, score in evaluations.items() if score is not None}

    @property
    def best(self) -> tuple[int, float] | None:
        """The step and score of the best evaluation."""
        scores = self.scores
        step = best_of(scores, bool(self.log.header["maximize"]))
        return None if step is None else (step, scores[step])


def account(run: RunFiles) -> dict[str, str]:
    """Summarizes a run as {topic: text}."""
    log, header = run.log, run.log.header
    steps = [entry for entry in run.metrics if "value" in entry]
    told = {
        "folder": f"{run.path} ({_sizes(run.path)})",
        "versions": ", ".join(
            f"{what} {header[what]}"
            for what in ("zoopt", "torch", "kernel", "format")
            if what in header
        ),
        "base": f"{header['base'][:12]}, {len(header['parameters'])} tensors tuned",
        "method": f"{header['estimator']['name']}, {header['direction']}, {header['engine']}, "
        f"{header['update']['name']}, seed {header['seed']}",
        "settings": ", ".join(f"{name}={value!r}" for name, value in _chosen(run.config).items()),
        "steps": f"{len(log.records)} of {run.config.get('steps', 'unknown')}",
        "stopped": _stopped(run),
    }
    if run.best is not None:
        step, score = run.best
        first, last = next(iter(run.scores.items())), next(reversed(run.scores.items()))
        told["best"] = (
            f"{score:.6g} at step {step} ({first[1]:.6g} at step {first[0]}, {last[1]:.6g} at "
            f"step {last[0]}, {len(run.scores)} evaluations)"
        )
    found = next((entry["auto"] for entry in run.metrics if "auto" in entry), None)
    if found is not None:
        told |= _search(found, -1.0 if header["maximize"] else 1.0)
    if log.records:
        told["learning rate"] = _course([record.lr[0] for record in log.records])
        told["eps"] = _course([record.eps[0] for record in log.records])
    if log.rollbacks:
        told["rollbacks"] = "; ".join(
            [f"from step {r.at} to {r.to} ({r.why})" for r in log.rollbacks[:_MANY]]
            + [f"{len(log.rollbacks) - _MANY} more"] * (len(log.rollbacks) > _MANY)
        )
    smaller = [entry for entry in run.metrics if "forward_size" in entry]
    if smaller:
        told["out of memory"] = "; ".join(
            f"{e['forward_size']} rows per forward from step {e['step']}" for e in smaller[:_MANY]
        )
    if steps:
        told["forwards"] = f"{steps[-1]['forwards']:,} minibatch evaluations"
        told["time"] = f"{in_time(sum(entry['seconds'] for entry in steps))} in steps"
    return told


def _search(found: Mapping[str, Any], sign: float) -> dict[str, str]:
    """Summarizes the search for lr and eps: its result, its cost, and the evidence.

    Args:
        found: the chosen rates; see :class:`zoopt.tuning.search.auto.Choice`.
        sign: factor that turns a trial's score (lower is better) into the objective.
    """
    told = {
        "rates found": f"lr {found['lr']:g}, eps {found['eps']:g}, with {found['forwards']:,} "
        "minibatch evaluations"
    }
    if found["errors"]:
        errors = (f"{error:.2g} at {eps}" for eps, error in found["errors"].items())
        told["why this eps"] = "error of slopes " + ", ".join(errors)
    if found["laps"]:
        measured = (f"{what} {value:.3g}" for what, value in found["measured"].items())
        trials = [f"{sign * lap['score']:.4g} at lr {lap['lr']:g}" for lap in found["laps"]]
        if found["base"] is not None:
            trials.append(f"{sign * found['base']:.4g} before any step")
        told["why this lr"] = f"{', '.join(measured)}; trials ended at {', '.join(trials)}"
    return told


def _stopped(run: RunFiles) -> str:
    if not run.metrics:
        return "unknown: there is no metrics.jsonl (ZOTrainer writes only the Trainer's logs)"
    stops = [entry for entry in run.metrics if "stop" in entry]
    if not stops or run.metrics[-1] is not stops[-1]:
        return "not finished: running or killed; repeat the same call to resume it"
    return ", ".join(f"{reason} ({value})" for reason, value in stops[-1]["stop"].items())


def _chosen(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the defaults."""
    defaults = flat(plain(Job(model="", task=TaskSettings())))
    return {
        name: value
        for name, value in config.items()
        if value not in ("", [], {}, None) and defaults.get(name) != value
    }


def _course(values: list[float]) -> str:
    ends = f"{values[0]:.3g} to {values[-1]:.3g}" if values[0] != values[-1] else f"{values[0]:.3g}"
    beyond = [f"{v:.3g}" for v in (min(values), max(values)) if v not in (values[0], values[-1])]
    return ends + (f" (via {', '.join(beyond)})" if beyond else "")


def _sizes(folder: Path) -> str:
    sizes = {
        path.name: sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]))
        for path in sorted(folder.iterdir())
    }
    return ", ".join(f"{name} {in_bytes(size)}" for name, size in sizes.items())
