"""Tasks: how examples become predictions, and predictions an objective."""

from zoopt.tasks.base import Example, Scores, Task, TaskObjective, as_needed
from zoopt.tasks.head import HeadClassification, Regression
from zoopt.tasks.verbalizer import Verbalizer

TASKS: dict[str, type[Task]] = {
    "verbalizer": Verbalizer,
    "head": HeadClassification,
    "regression": Regression,
}

__all__ = [
    "TASKS",
    "Example",
    "HeadClassification",
    "Regression",
    "Scores",
    "Task",
    "TaskObjective",
    "Verbalizer",
    "as_needed",
]
