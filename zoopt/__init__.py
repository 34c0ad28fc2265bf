"""zoopt tunes any torch model against any number you can compute, with forward passes alone.

>>> import torch, zoopt
>>> x = torch.nn.Parameter(torch.zeros(3))
>>> opt = zoopt.ZOOptimizer([x], lr=0.02, estimator=zoopt.MeZO(eps=1e-3), maximize=True)
>>> for _ in range(300):
...     value = opt.step(lambda: -(x - 1).abs().sum().item())
>>> bool((x - 1).abs().max() < 0.5)
True
"""

from zoopt.bench import benchmark
from zoopt.conventions import metric, rewards
from zoopt.directions import Gaussian, LowRank, Rademacher, Sphere, kernel_mode
from zoopt.engines import UnseenParameterError
from zoopt.estimators import NSPSA, SPSA, ZOEstimator
from zoopt.interfaces import Displacement, GradientEstimate, Probe
from zoopt.metrics import Metric
from zoopt.namesake import warn_of_namesake
from zoopt.optimizer import ZOOptimizer
from zoopt.population import Population
from zoopt.presets import MeZO
from zoopt.probing import NonFiniteLossError
from zoopt.records import StepRecord
from zoopt.registry import get_objective, list_objectives, register_objective
from zoopt.tasks import Generation, HeadClassification, Regression, Task, TaskObjective, Verbalizer
from zoopt.trajectory import TrajectoryError, replay
from zoopt.tuning.loop import Result, tune
from zoopt.tuning.settings import Settings
from zoopt.updates import SGD, Adam, Momentum

__version__ = "0.1.0"

__all__ = [
    "NSPSA",
    "SGD",
    "SPSA",
    "Adam",
    "Displacement",
    "Gaussian",
    "Generation",
    "GradientEstimate",
    "HeadClassification",
    "LowRank",
    "MeZO",
    "Metric",
    "Momentum",
    "NonFiniteLossError",
    "Population",
    "Probe",
    "Rademacher",
    "Regression",
    "Result",
    "Settings",
    "Sphere",
    "StepRecord",
    "Task",
    "TaskObjective",
    "TrajectoryError",
    "UnseenParameterError",
    "Verbalizer",
    "ZOEstimator",
    "ZOOptimizer",
    "benchmark",
    "get_objective",
    "kernel_mode",
    "list_objectives",
    "metric",
    "register_objective",
    "replay",
    "rewards",
    "tune",
]

warn_of_namesake()
