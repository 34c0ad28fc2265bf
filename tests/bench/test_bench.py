"""Studies: what a trial counts, how contestants are tuned, what an interruption leaves."""

import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import zoopt
from zoopt.bench import Case, Contestant, Problem, Study, contestant, rows, standings, trial
from zoopt.bench.contestants import TUNING_TRIALS
from zoopt.bench.results import TUNING_SEED, done


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
    assert row["curve"][0] == (0, pytest.approx(start, rel=1e-5))
    assert row["score"] == pytest.approx(start / 4**4)  # the fifth step had one evaluation left
    assert row["curve"][-1] == (9, pytest.approx(row["score"], rel=1e-5))


def test_a_contestant_that_diverges_is_a_row_that_says_so() -> None:
    row = trial.run(PROBLEM, contestant("spsa"), {"lr": 1e30, "eps": 1e-3}, budget=50, seed=0)
    assert row["stop"].startswith("NonFiniteLossError after")
    assert row["evaluations"] < 50


def test_what_maximizes_is_told_the_negative_and_judged_by_the_number(tmp_path: Path) -> None:
    def case(seed: int) -> Case:
        (x,) = (made := sphere(seed)).source
        value = lambda: 5 - (x**2).sum()  # noqa: E731
        return replace(made, closure=value, score=lambda: value().item(), higher_is_better=True)

    study = Study([Problem("hill", case)], [contestant("mezo")], 200, 2, tmp_path / "trials.jsonl")
    table = study.run()
    assert table["higher_is_better"].all()
    assert table["score"].between(4.8, 5.0).all()


def test_a_killed_trial_is_a_row_with_its_reason(tmp_path: Path) -> None:
    class Hungry(Descent):
        def step(self, closure: Callable[[], Any]) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    hungry = Contestant("hungry", lambda source, *_: Hungry(source, 0.5))
    study = Study([PROBLEM], [hungry, descent(0.5)], 10, 2, tmp_path / "trials.jsonl")
    table = standings(study.run(workers=2)).set_index("contestant")
    assert table.loc["hungry", "ended early"] == 2
    assert table.loc["hungry", "median"] == math.inf
    assert table.loc["descent", "ended early"] == 0
    assert set(rows(study.file)["stop"]) == {
        "budget",
        "killed, as the system does when memory runs out",
    }
    before = study.file.read_bytes()
    study.run()
    assert study.file.read_bytes() == before


def test_too_little_memory_is_a_row_and_a_mistake_of_the_callers_is_not() -> None:
    def starved(*_: Any) -> Descent:
        raise MemoryError

    row = trial.run(PROBLEM, Contestant("starved", starved), {}, budget=9, seed=1)
    assert row["stop"] == "MemoryError after 0 evaluations"
    assert row["score"] == sphere(1).score()

    def wrong(seed: int) -> Case:
        return replace(sphere(seed), closure=lambda: {}["label"])

    with pytest.raises(KeyError, match="label"):
        trial.run(Problem("wrong", wrong), descent(0.5), {"rate": 0.5}, budget=9, seed=1)


def test_an_arithmetic_error_of_the_closures_is_the_callers() -> None:
    def divides(seed: int) -> Case:
        values = iter([1.0] * 20)
        return replace(sphere(seed), closure=lambda: torch.tensor(1 / next(values, 0)))

    with pytest.raises(ZeroDivisionError):
        trial.run(Problem("divides", divides), contestant("mezo"), {"lr": 0.1, "eps": 0.1}, 50, 0)


@pytest.mark.parametrize("error", [zoopt.NonFiniteLossError("NaN"), OverflowError("math range")])
def test_an_objective_that_cannot_score_what_has_diverged_ends_the_trial(error: Exception) -> None:
    def grows(seed: int) -> Case:
        values = iter([1.0] * 20)

        def closure() -> torch.Tensor:
            value = next(values, None)
            if value is None:
                raise error
            return torch.tensor(value)

        return replace(sphere(seed), closure=closure)

    row = trial.run(Problem("grows", grows), contestant("mezo"), {"lr": 0.1, "eps": 0.1}, 50, 0)
    assert row["stop"] == f"{type(error).__name__} after 21 evaluations"


def test_backpropagation_pays_three_evaluations_a_step_and_needs_a_gradient() -> None:
    adamw = contestant("adamw")
    row = trial.run(PROBLEM, adamw, {"lr": 0.1}, budget=10, seed=0)
    assert row["evaluations"] == 9
    assert row["score"] < row["curve"][0][1]
    assert not adamw.takes(PROBLEM)
    assert adamw.takes(replace(PROBLEM, differentiable=True))


def test_full_covariances_are_left_out_where_they_are_too_large() -> None:
    for name in ("nevergrad:CMA", "pycma", "evotorch:XNES"):
        assert contestant(name).takes(replace(PROBLEM, d=500))
        assert not contestant(name).takes(replace(PROBLEM, d=10_000))
        assert contestant(name).takes(PROBLEM)


def test_an_infinite_value_does_not_end_a_search() -> None:
    def case(seed: int) -> Case:
        (x,) = (made := sphere(seed)).source
        inside = lambda: (x**2).sum() if x.abs().max() < 3 else torch.tensor(math.inf)  # noqa: E731
        return replace(made, closure=inside)

    for name in ("nevergrad:OnePlusOne", "pycma", "evotorch:SNES"):
        row = trial.run(Problem("walled", case), contestant(name), {"sigma": 1.0}, 200, 0)
        assert row["stop"] == "budget"
        assert row["score"] < 0.5 * row["curve"][0][1]


def test_who_evaluates_nothing_in_a_step_is_finished() -> None:
    class Once(Descent):
        def step(self, closure: Callable[[], Any]) -> None:
            if self.rate:
                super().step(closure)
            self.rate = 0.0

    once = Contestant("once", lambda source, *_: Once(source, 0.5))
    row = trial.run(PROBLEM, once, {}, budget=10, seed=1)
    assert row["stop"] == "finished after 2 evaluations"
    assert row["score"] == pytest.approx(sphere(1).score() / 4)


def test_the_setting_is_chosen_on_a_seed_of_its_own(tmp_path: Path) -> None:
    study = Study([PROBLEM], [descent(0.1, 0.9, 1.5)], 10, 2, tmp_path / "trials.jsonl")
    table = study.run()
    assert list(table["setting"]) == ['{"rate": 0.9}'] * 2
    assert sorted(table["seed"]) == [0, 1]
    tuning = [row for row in done(study.file).values() if row["seed"] == TUNING_SEED]
    assert {row["evaluations"] for row in tuning} == {10}
    assert len(tuning) == 3


def test_a_range_is_widened_where_the_best_stands_at_its_end(tmp_path: Path) -> None:
    contestants = [descent(0.1, 0.2, 0.4), replace(descent(0.1, 0.9, 8.1), name="between")]
    study = Study([PROBLEM], contestants, 10, 2, tmp_path / "trials.jsonl", widened=2)
    table = study.run()
    tuning = [row for row in done(study.file).values() if row["seed"] == TUNING_SEED]
    tried: dict[str, list[float]] = {"descent": [], "between": []}
    for row in tuning:
        tried[row["contestant"]].append(json.loads(row["setting"])["rate"])
    assert tried == {"descent": [0.1, 0.2, 0.4, 0.8, 1.6], "between": [0.1, 0.9, 8.1]}
    chosen = table.set_index("contestant")["setting"]
    assert set(chosen["descent"]) == {'{"rate": 0.8}'}
    before = study.file.read_bytes()
    study.run()
    assert study.file.read_bytes() == before


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


def far(seed: int) -> Case:
    x = torch.nn.Parameter(torch.randn(4, generator=torch.Generator().manual_seed(seed)))
    return Case([x], lambda: (x**2).sum() + 1007, lambda: (x**2).sum().item())


def test_trials_of_another_problem_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    first = zoopt.benchmark(sphere, ["mezo"], budget=20, seeds=1, folder=tmp_path)
    with pytest.raises(ValueError, match=r"another problem 'problem' \(objective [\d.]+ there, 10"):
        zoopt.benchmark(far, ["mezo"], budget=20, seeds=1, folder=tmp_path)
    assert len(zoopt.benchmark(far, ["mezo"], budget=20, seeds=1, folder=tmp_path, name="far")) == 1
    again = zoopt.benchmark(sphere, ["mezo"], budget=20, seeds=1, folder=tmp_path)
    pd.testing.assert_frame_equal(again, first)


def test_a_problem_whose_start_is_noise_is_the_same_problem(tmp_path: Path) -> None:
    def noisy(seed: int) -> Case:
        x = torch.nn.Parameter(torch.zeros(4))
        return Case([x], lambda: (x**2).sum() + os.urandom(1)[0], lambda: (x**2).sum().item())

    for _ in range(2):
        zoopt.benchmark(noisy, ["mezo"], budget=4, seeds=1, folder=tmp_path)


def test_the_standings_of_a_call_are_those_it_asked_for(tmp_path: Path) -> None:
    zoopt.benchmark(sphere, ["mezo"], budget=20, seeds=1, folder=tmp_path)
    zoopt.benchmark(sphere, ["mezo"], budget=10, seeds=1, folder=tmp_path)
    table = zoopt.benchmark(sphere, ["spsa"], budget=10, seeds=1, folder=tmp_path)
    assert table[["contestant", "budget"]].to_numpy().tolist() == [["spsa", 10]]


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
