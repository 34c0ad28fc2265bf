"""Tasks: how a model turns examples into predictions, which an objective scores."""

from zoopt.tasks.base import Scores, Task
from zoopt.tasks.choice import MultipleChoice
from zoopt.tasks.examples import Drawn, Example
from zoopt.tasks.generation import Generation
from zoopt.tasks.head import HeadClassification, Regression
from zoopt.tasks.masked import MaskedVerbalizer
from zoopt.tasks.model_function import Direct
from zoopt.tasks.objective import TaskObjective, as_needed, references_for
from zoopt.tasks.paper import paper_task
from zoopt.tasks.preference import Preference
from zoopt.tasks.similarity import Similarity
from zoopt.tasks.verbalizer import Verbalizer

TASKS: dict[str, type[Task]] = {
    "verbalizer": Verbalizer,
    "masked": MaskedVerbalizer,
    "multiple_choice": MultipleChoice,
    "generation": Generation,
    "head": HeadClassification,
    "regression": Regression,
    "similarity": Similarity,
}

__all__ = [
    "TASKS",
    "Direct",
    "Drawn",
    "Example",
    "Generation",
    "HeadClassification",
    "MaskedVerbalizer",
    "MultipleChoice",
    "Preference",
    "Regression",
    "Scores",
    "Similarity",
    "Task",
    "TaskObjective",
    "Verbalizer",
    "as_needed",
    "paper_task",
    "references_for",
]
