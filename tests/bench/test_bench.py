"""Studies: what a trial counts, how contestants are tuned, what an interruption leaves."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import zoopt
from zoopt.bench import Case, Contestant, Problem, Study, contestant, rows, trial
from zoopt.bench.contestants import TUNING_TRIALS
from zoopt.bench.study import TUNING_SEED, done


def sphere(seed: int) -> Case:
    x = torch.nn.Parameter(torch.randn(4, generator=torch.Generator().manual_seed(seed)))
    return Case([x], lambda: (x**2).sum() + 7, lambda: (x**2).sum().item(), forwards=3)


class Descent:
    """Multiplies θ with ``1 − rate`` for two evaluations a step."""

    def __init__(self, source: Any, rate: float) -> None:
        (self.x,) = source
        self.rate = rate

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> None:
        closure()
        closure()
        self.x *= 1 - self.rate

    def settle(self) -> None:
        self.x.grad = None


def descent(*rates: float) -> Contestant:
    def make(source: Any, setting: Mapping[str, float], budget: int, seed: int) -> Descent:
        return Descent(source, setting["rate"])

    return Contestant("descent", make, tuple({"rate": rate} for rate in rates))


PROBLEM = Problem("sphere", sphere)


def test_a_trial_spends_its_budget_to_the_evaluation() -> None:
    row = trial.run(PROBLEM, descent(0.5), {"rate": 0.5}, budget=9, seed=1)
    start = sphere(1).score()
    assert row["evaluations"] == 9
    assert row["forwards"] == 27
    assert row["stop"] == "budget"
    assert row["curve"][0] == (0, start)
    assert row["score"] == pytest.approx(start / 4**4)  # the fifth step had one evaluation left
    assert row["curve"][-1] == (9, row["score"])


def test_a_contestant_that_diverges_is_a_row_that_says_so() -> None:
    row = trial.run(PROBLEM, contestant("spsa"), {"lr": 1e30}, budget=50, seed=0)
    assert row["stop"].startswith("NonFiniteLossError after")
    assert row["evaluations"] < 50


def test_the_setting_is_chosen_on_a_seed_of_its_own(tmp_path: Path) -> None:
    study = Study([PROBLEM], [descent(0.1, 0.9, 1.5)], 10, 2, tmp_path / "trials.jsonl")
    table = study.run()
    assert list(table["setting"]) == ['{"rate": 0.9}'] * 2
    assert sorted(table["seed"]) == [0, 1]
    tuning = [row for row in done(study.file).values() if row["seed"] == TUNING_SEED]
    assert {row["evaluations"] for row in tuning} == {10}
    assert len(tuning) == 3


def test_an_interrupted_study_goes_on(tmp_path: Path) -> None:
    study = Study([PROBLEM], [descent(0.1, 0.9)], 10, 3, tmp_path / "trials.jsonl")
    whole = study.run()
    lines = study.file.read_text().splitlines(keepends=True)
    study.file.write_text("".join(lines[:-2]) + lines[-2][:40])
    again = study.run(workers=2)
    kept = ["seed", "setting", "score", "evaluations"]
    assert (
        again[kept]
        .sort_values("seed", ignore_index=True)
        .equals(whole[kept].sort_values("seed", ignore_index=True))
    )
    assert study.file.read_text().splitlines(keepends=True)[:-2] == lines[:-2]
    before = study.file.read_bytes()
    study.run()
    assert study.file.read_bytes() == before


def test_everybody_is_tuned_over_as_many_settings() -> None:
    names = ["spsa", "nspsa:2", "mezo/rademacher", "nevergrad:OnePlusOne", "pycma"]
    names += ["nevergrad:SPSA-tuned", "evotorch:SNES", "adamw"]
    assert {len(contestant(name).settings) for name in names} == {TUNING_TRIALS}
    assert contestant("nevergrad:SPSA").settings == ({"sigma": 1.0},)
    assert len(contestant("spsa", trials=1).settings) == 1


def test_a_comparison_in_one_call(tmp_path: Path) -> None:
    names = ["mezo/rademacher", "nevergrad:OnePlusOne", "pycma-diagonal"]
    table = zoopt.benchmark(sphere, names, budget=60, seeds=2, folder=tmp_path)
    assert sorted(table["contestant"]) == sorted(names)
    assert list(table["median"]) == sorted(table["median"])
    assert (table["evaluations"] == 60).all()
    assert (table["forwards"] == 180).all()
    assert table["median"].max() < 1
    assert math.isfinite(table["peak_mb"].max())
    assert len(rows(tmp_path / "trials.jsonl")) == 6
