"""Tasks: how examples become predictions, and predictions an objective."""

from zoopt.tasks.base import Example, Scores, Task, TaskObjective, as_needed, references_for
from zoopt.tasks.direct import Direct
from zoopt.tasks.generation import Generation
from zoopt.tasks.head import HeadClassification, Regression
from zoopt.tasks.preference import Preference
from zoopt.tasks.verbalizer import Verbalizer

TASKS: dict[str, type[Task]] = {
    "verbalizer": Verbalizer,
    "head": HeadClassification,
    "regression": Regression,
    "generation": Generation,
}

__all__ = [
    "TASKS",
    "Direct",
    "Example",
    "Generation",
    "HeadClassification",
    "Preference",
    "Regression",
    "Scores",
    "Task",
    "TaskObjective",
    "Verbalizer",
    "as_needed",
    "references_for",
]
