"""zoopt tunes any torch model against any number you can compute, with forward passes alone.

>>> import torch, zoopt
>>> x = torch.nn.Parameter(torch.zeros(3))
>>> opt = zoopt.ZOOptimizer([x], lr=0.02, estimator=zoopt.MeZO(eps=1e-3), maximize=True)
>>> for _ in range(300):
...     value = opt.step(lambda: -(x - 1).abs().sum().item())
>>> bool((x - 1).abs().max() < 0.5)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoopt.directions import Gaussian, LowRank, Rademacher, Sphere, kernel_mode
from zoopt.engines import UnseenParameterError
from zoopt.estimators import NSPSA, SPSA, Dueling, OneSided, Ranking, ZOEstimator
from zoopt.integrations.reward_model import reward_model
from zoopt.interfaces import Displacement, GradientEstimate, NonFiniteLossError, Probe, StepRecord
from zoopt.objectives.comparison import comparison
from zoopt.objectives.conventions import metric, rewards
from zoopt.objectives.metric import Metric
from zoopt.objectives.registry import get_objective, list_objectives, register_objective
from zoopt.objectives.resolve import combined
from zoopt.optimizer import ZOOptimizer
from zoopt.parameters.quantized import quantization_scales
from zoopt.precision import precision_report
from zoopt.presets import MeZO, qzo
from zoopt.probes.cuda_graph import CudaGraph
from zoopt.probes.population import Population
from zoopt.recipes import RECIPES, Recipe
from zoopt.support.heap import keep_freed_memory
from zoopt.support.name_clash import warn_of_namesake
from zoopt.tasks import (
    Generation,
    HeadClassification,
    MaskedVerbalizer,
    MultipleChoice,
    Preference,
    Regression,
    Similarity,
    Task,
    TaskObjective,
    Verbalizer,
    paper_task,
)
from zoopt.trajectory import TrajectoryError, replay
from zoopt.tuning.settings import Settings
from zoopt.updates import SGD, Adam, Momentum, Projected

if TYPE_CHECKING:
    from zoopt import baselines as baselines
    from zoopt import bench as bench
    from zoopt.bench import benchmark
    from zoopt.integrations.peft import prefix_from_tokens
    from zoopt.integrations.trainer import ZOTrainer
    from zoopt.runs.merging import merge
    from zoopt.tasks.ratings import agreement, preferences
    from zoopt.tuning.callbacks import Callback
    from zoopt.tuning.ending import Result
    from zoopt.tuning.tune import tune

__version__ = "0.1.0"

__all__ = [
    "NSPSA",
    "RECIPES",
    "SGD",
    "SPSA",
    "Adam",
    "Callback",
    "CudaGraph",
    "Displacement",
    "Dueling",
    "Gaussian",
    "Generation",
    "GradientEstimate",
    "HeadClassification",
    "LowRank",
    "MaskedVerbalizer",
    "MeZO",
    "Metric",
    "Momentum",
    "MultipleChoice",
    "NonFiniteLossError",
    "OneSided",
    "Population",
    "Preference",
    "Probe",
    "Projected",
    "Rademacher",
    "Ranking",
    "Recipe",
    "Regression",
    "Result",
    "Settings",
    "Similarity",
    "Sphere",
    "StepRecord",
    "Task",
    "TaskObjective",
    "TrajectoryError",
    "UnseenParameterError",
    "Verbalizer",
    "ZOEstimator",
    "ZOOptimizer",
    "ZOTrainer",
    "agreement",
    "benchmark",
    "combined",
    "comparison",
    "get_objective",
    "keep_freed_memory",
    "kernel_mode",
    "list_objectives",
    "merge",
    "metric",
    "paper_task",
    "precision_report",
    "preferences",
    "prefix_from_tokens",
    "quantization_scales",
    "qzo",
    "register_objective",
    "replay",
    "reward_model",
    "rewards",
    "tune",
]

_LAZY = {
    "Callback": "zoopt.tuning.callbacks",
    "Result": "zoopt.tuning.ending",
    "ZOTrainer": "zoopt.integrations.trainer",
    "agreement": "zoopt.tasks.ratings",
    "baselines": "zoopt.baselines",
    "bench": "zoopt.bench",
    "benchmark": "zoopt.bench",
    "merge": "zoopt.runs.merging",
    "prefix_from_tokens": "zoopt.integrations.peft",
    "preferences": "zoopt.tasks.ratings",
    "tune": "zoopt.tuning.tune",
}
"""Names whose modules take heavy libraries (pandas, matplotlib, transformers), at first use."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoopt' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return module if _LAZY[name] == f"zoopt.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


warn_of_namesake()
