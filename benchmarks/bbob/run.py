"""COCO's functions (bbob, bbob-noisy, bbob-largescale), nobody tuned; see README.md.

`python -m benchmarks.bbob.run` goes on with the experiments under exdata/ (not committed), has
cocopp process them, and writes results/. `--smoke` runs everything at toy size and keeps nothing.
"""

import argparse
import os
import shutil
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import cocoex
import numpy as np

from benchmarks.bbob import summary
from zoopt.baselines.searches import Nevergrad, PyCMA
from zoopt.integrations.nevergrad import Zoopt

HERE = Path(__file__).parent
SIGMA = 2.0
"""Everybody's first standard deviation, in a domain from -5 to 5."""

Zoopt(estimator="mezo", direction="gaussian").set_name("ZooptMeZO", register=True)
NEVERGRAD = (
    "ZooptSPSA",
    "ZooptNSPSA",
    "ZooptMeZO",
    "OnePlusOne",
    "DiagonalCMA",
    "CMA",
    "NGOpt",
    "TwoPointsDE",
    "PSO",
    "SPSA",
    "RandomSearch",
)
SEARCHES = {
    **{name: lambda d, b, s, name=name: Nevergrad(name, d, b, s) for name in NEVERGRAD},
    "pycma": lambda d, b, s: PyCMA(d, seed=s),
    "pycma-diagonal": lambda d, b, s: PyCMA(d, diagonal=True, seed=s),
}


@dataclass(frozen=True)
class Experiment:
    """Some problems of a suite, and the budget in evaluations a dimension."""

    suite: str
    dimensions: str
    functions: str
    instances: str
    budget: int

    def problems(self):
        chosen = [f"dimensions:{self.dimensions}", f"instance_indices:{self.instances}"]
        if self.functions:
            chosen.append(f"function_indices:{self.functions}")
        return cocoex.Suite(self.suite, "", " ".join(chosen))


EXPERIMENTS = (
    Experiment("bbob", "2,5,10,20,40", "", "1", 20),
    Experiment("bbob-noisy", "5,20", "", "1", 10),
    Experiment("bbob-largescale", "160,640", "1,8,10,12,15,20", "1", 3),
)
SMOKE = (
    Experiment("bbob", "2,3", "1,8", "1", 10),
    Experiment("bbob-noisy", "2", "1", "1", 10),
    Experiment("bbob-largescale", "20", "1", "1", 2),
)


def minimize(search, problem, budget):
    """Spends the budget, or less if the last target of the function is hit."""
    rng = np.random.default_rng(zlib.crc32(problem.id.encode()))
    start = rng.uniform(-4, 4, problem.dimension)
    made = search(problem.dimension, budget, problem.id_instance)
    while problem.evaluations < budget and not problem.final_target_hit:
        made.tell(float(problem(start + SIGMA * made.ask())))


def run(experiment, name, folder):
    """One algorithm on the experiment's problems; COCO's logger writes to the folder."""
    # COCO's C code writes below exdata/ of the working directory.
    inside = f"{experiment.suite}-{name}"
    before = Path.cwd()
    os.chdir(folder)
    try:
        shutil.rmtree(Path("exdata") / inside, ignore_errors=True)
        observer = cocoex.Observer(
            experiment.suite, f"result_folder: {inside} algorithm_name: {name}"
        )
        for problem in experiment.problems():
            problem.observe_with(observer)
            minimize(SEARCHES[name], problem, experiment.budget * problem.dimension)
            problem.free()
        (Path("exdata") / inside / "done").touch()
    finally:
        os.chdir(before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="toy size, nothing kept")
    smoke = parser.parse_args().smoke
    warnings.simplefilter("ignore")
    cocoex.log_level("warning")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if smoke else HERE
        for experiment in SMOKE if smoke else EXPERIMENTS:
            for name in SEARCHES:
                made = folder / "exdata" / f"{experiment.suite}-{name}"
                if not (made / "done").exists():
                    run(experiment, name, folder)
                    print(experiment.suite, name, flush=True)
        experiments = SMOKE if smoke else EXPERIMENTS
        summary.write(folder / "exdata", folder / "results", experiments, SEARCHES)


if __name__ == "__main__":
    main()
