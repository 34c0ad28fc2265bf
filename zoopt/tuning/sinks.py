"""Sinks: destinations of a run's metrics besides ``metrics.jsonl``.

A sink is a callback constructed with the run's folder, its configuration, and the lines of
``metrics.jsonl`` so far. A resumed run reports each step once; after a rollback the repeated steps
are reported again.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
import io
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoopt.support.names import unknown
from zoopt.tuning.callbacks import Callback, Entry

log = logging.getLogger("zoopt")

Entries = Sequence[Entry]


class CSVSink(Callback):
    """``metrics.csv``: a row for each step and evaluation, a column for each quantity."""

    def __init__(self, folder: Path, config: Mapping[str, Any], entries: Entries) -> None:
        self._path, self._rows, self._columns = folder / "metrics.csv", list(entries), ["step"]
        self._write()

    def on_step(self, metrics: Entry, step: int) -> None:
        """Adds a row."""
        self._rows.append(metrics)
        if not metrics.keys() <= {*self._columns}:
            self._write()
            return
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(metrics)

    on_evaluation = on_step

    def _write(self) -> None:
        self._columns = list(dict.fromkeys(["step", *(key for row in self._rows for key in row)]))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        beside = self._path.with_suffix(".csv.partial")
        beside.write_text(text.getvalue(), encoding="utf-8", newline="")
        os.replace(beside, self._path)


class TensorBoardSink(Callback):
    """Event files in ``tensorboard/``; on a resume, points after the resumed step are hidden."""

    def __init__(self, folder: Path, config: Mapping[str, Any], entries: Entries) -> None:
        from torch.utils.tensorboard import SummaryWriter

        after = 1 + max((entry["step"] for entry in entries), default=-1)
        make: Callable[..., Any] = SummaryWriter
        self._writer = make(str(folder / "tensorboard"), purge_step=after if entries else None)
        if not entries:
            self._writer.add_text("config", "\n".join(f"    {k}: {v}" for k, v in config.items()))

    def on_step(self, metrics: Entry, step: int) -> None:
        """Adds a scalar for each number."""
        for name, value in numbers(metrics).items():
            self._writer.add_scalar(name, value, step)

    on_evaluation = on_step

    def close(self) -> None:
        """Flushes pending events and closes the file."""
        self._writer.close()


class WandbSink(Callback):
    """A W&B run in ``wandb/``: offline (upload with ``wandb sync``) unless WANDB_MODE is set."""

    def __init__(self, folder: Path, config: Mapping[str, Any], entries: Entries) -> None:
        import wandb

        self._run = wandb.init(
            dir=str(folder),
            id=kept(folder / "wandb.id", lambda: uuid.uuid4().hex[:8]),
            name=folder.name,
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        self._run.define_metric("*", step_metric="step")

    def on_step(self, metrics: Entry, step: int) -> None:
        """Adds a row to the run's history; evaluations are separate rows."""
        self._run.log({"step": step, **numbers(metrics)})

    on_evaluation = on_step

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class MLflowSink(Callback):
    """A run of the MLflow experiment "zoopt", in ``mlruns/`` or at MLFLOW_TRACKING_URI."""

    def __init__(self, folder: Path, config: Mapping[str, Any], entries: Entries) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            # MLflow requires this to write plain files instead of a database.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (folder / "mlruns").absolute().as_uri()
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)
        self._id = kept(folder / "mlflow.id", lambda: self._new(folder, config))
        self._client.update_run(self._id, status="RUNNING")

    def _new(self, folder: Path, config: Mapping[str, Any]) -> str:
        found = self._client.get_experiment_by_name("zoopt")
        where = found.experiment_id if found else self._client.create_experiment("zoopt")
        run: str = self._client.create_run(where, run_name=folder.name).info.run_id
        for name, value in config.items():
            self._client.log_param(run, name, str(value)[:500])
        return run

    def on_step(self, metrics: Entry, step: int) -> None:
        """Adds a point to each metric."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for name, value in numbers(metrics).items()]
        self._client.log_batch(self._id, metrics=points)

    on_evaluation = on_step

    def close(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._id)


SINKS: dict[str, Callable[..., Callback]] = {
    "csv": CSVSink,
    "tensorboard": TensorBoardSink,
    "wandb": WandbSink,
    "mlflow": MLflowSink,
}


def check(names: Sequence[str]) -> None:
    """Checks that sinks exist and their packages are installed.

    Raises:
        ValueError: unknown sink; the message suggests the nearest name.
        ImportError: its package is missing; the message says what to install.
    """
    for name in names:
        if name not in SINKS:
            raise ValueError(unknown("sink", name, SINKS))
        if name != "csv" and importlib.util.find_spec(name) is None:
            raise ImportError(f"sink {name!r} needs: pip install 'zoopt-torch[{name}]'")


def opened(
    names: Sequence[str], folder: Path, config: Mapping[str, Any], entries: Entries
) -> list[Callback]:
    """Creates the sinks of a run; see the module."""
    return [
        Tolerated(name, functools.partial(SINKS[name], folder, config, entries)) for name in names
    ]


class Tolerated(Callback):
    """Wraps a sink so that it cannot end the run: its first error is logged, and it is disabled.

    Args:
        name: the sink's name.
        make: constructs the sink.
    """

    def __init__(self, name: str, make: Callable[[], Callback]) -> None:
        self._name, self._sink = name, Callback()
        self._attempt(lambda: setattr(self, "_sink", make()))

    def on_step(self, metrics: Entry, step: int) -> None:
        """Calls the sink."""
        self._attempt(lambda: self._sink.on_step(metrics, step))

    def on_evaluation(self, metrics: Entry, step: int) -> None:
        """Calls the sink."""
        self._attempt(lambda: self._sink.on_evaluation(metrics, step))

    def close(self) -> None:
        """Closes the sink."""
        self._attempt(lambda: self._sink.close())

    def _attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._sink = Callback()
            log.warning(
                "sink %r failed (%s: %s); the run continues without it, and metrics.jsonl still "
                "gets all metrics",
                self._name,
                type(error).__name__,
                error,
            )


def numbers(entry: Entry) -> dict[str, float]:
    """The finite numbers of a line, except its step."""
    return {
        name: float(value)
        for name, value in entry.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


def kept(path: Path, make: Callable[[], str]) -> str:
    """Reads a file's text, creating the file first if it is missing."""
    if not path.exists():
        path.write_text(make(), encoding="utf-8")
    return path.read_text(encoding="utf-8")
