"""Class offsets against brute force."""

import numpy as np

from zoopt.tuning.report.calibration import class_offsets

RNG = np.random.default_rng(0)


def test_calibration_is_the_best_threshold():
    truth = RNG.integers(0, 2, 200)
    margin = RNG.normal(size=200) + truth + 3.0
    offsets = class_offsets(np.stack([np.zeros(200), margin], axis=1), truth)
    best = max(((margin > cut) == truth).mean() for cut in np.sort(margin))
    assert ((margin + offsets[1] > 0) == truth).mean() == best


def test_calibration_leaves_out_choices_that_an_example_has_not():
    scores = np.array([[2.0, 1.0, -np.inf], [1.0, 0.5, 0.0], [1.0, 0.8, 0.0], [0.0, -np.inf, 1.0]])
    offsets = class_offsets(scores, np.array([0, 1, 1, 2]))
    assert np.isfinite(offsets).all()
    assert (scores + offsets).argmax(1).tolist() == [0, 1, 1, 2]


def test_calibration_of_three_classes_never_hurts():
    truth = RNG.integers(0, 3, 200)
    scores = RNG.normal(size=(200, 3)) + 2 * np.eye(3)[truth] + np.array([3.0, 0.0, -2.0])
    before = (scores.argmax(1) == truth).mean()
    assert ((scores + class_offsets(scores, truth)).argmax(1) == truth).mean() > before + 0.1
