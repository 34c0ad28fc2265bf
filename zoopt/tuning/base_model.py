"""What a run asks of the base model before it tunes it."""

from __future__ import annotations

from zoopt.objectives.comparison import Comparison
from zoopt.probes.randomness import seeded
from zoopt.probes.surroundings import evaluation_mode
from zoopt.tasks import Scores
from zoopt.tuning.folder.run_folder import RunFolder
from zoopt.tuning.report.calibration import calibrating
from zoopt.tuning.report.console import Console
from zoopt.tuning.stepping import Stepper


def measure_base(stepper: Stepper, folder: RunFolder, console: Console) -> dict[str, Scores]:
    """Returns the base model's scores, and stores what objectives compare with it.

    What an earlier session of the run has measured is read from the folder. Outputs that the
    objective compares with are computed in each session, and the noise floor only before any step.

    Args:
        stepper: evaluates the model, whose θ is that of the base model.
        folder: the run's files.
        console: shows progress.

    Returns:
        "test": scores of the test examples; "train": of those that set the class offsets.
    """
    _anchor(stepper)
    scores = folder.before()
    if scores is None:
        scores = _scores(stepper, console)
        folder.keep_before(scores)
    known = folder.metrics.last("noise_floor") is not None or folder.log is not None
    if not known and not isinstance(stepper.metric, Comparison):
        noise = stepper.noise_floor()
        folder.metrics.append({"step": 0, "noise_floor": noise, "forwards": stepper.forwards})
    return scores


def _anchor(stepper: Stepper) -> None:
    """Stores the outputs that the objective, or its surrogate, compares with."""
    task = stepper.task
    splits = [task.train] if stepper.from_base else []
    splits += [task.dev, task.test] if stepper.metric.from_base else []
    if splits:
        with evaluation_mode(stepper.model), seeded(stepper.settings.seed):
            stepper.fitting(lambda: task.anchor(stepper.model, *splits))


def _scores(stepper: Stepper, console: Console) -> dict[str, Scores]:
    task = stepper.task
    sample = calibrating(task, stepper.settings.calibrate_on)
    total = len(task.test) + len(sample)
    with console.work("evaluating the model as it is", total) as advance:
        return {
            "test": stepper.predict(task.test, advance),
            "train": stepper.predict(sample, advance),
        }
