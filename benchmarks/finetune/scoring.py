"""What a trial is measured by."""

import time

import numpy as np

import zoopt
from benchmarks.allocation import CPU, bytes_of
from zoopt.support.memory import peak_bytes
from zoopt.tasks import as_needed

BATCH = 16
"""Sentences of one forward pass, as budgets count them."""


def scores(task, predict, rows):
    """Accuracy and cross-entropy on sentences, and CPU milliseconds that one took.

    Where weights have diverged, what is NaN says nothing of a class.
    """
    started = time.process_time()
    said = np.nan_to_num(predict(rows))
    seconds = time.process_time() - started
    truth = task.references(rows)
    found = {}
    for name in ("accuracy", "cross_entropy"):
        metric = zoopt.get_objective(name)
        found[name] = metric(as_needed(said, metric.needs), truth)
    return {**found, "ms": 1000 * seconds / len(rows)}


def with_memory(model, call):
    """What a call returns, and the megabytes of the weights and of its peak on top of them."""
    weights = bytes_of(model.parameters())
    returned, peak = peak_bytes(call, CPU)
    return returned, (weights + peak) / 1e6
