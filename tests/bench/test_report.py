"""What is made of trials: gaps, targets, profiles, and a report that needs no other file."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import zoopt
from zoopt.bench import targets
from zoopt.cli import main


def trials(**curves: dict[int, list[list[float]]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for contestant, by_seed in curves.items():
        for seed, curve in by_seed.items():
            row = {"problem": "p", "budget": 100, "contestant": contestant, "seed": seed}
            score = curve[-1][1] if curve else math.nan
            rows.append({**row, "curve": curve, "score": score, "higher_is_better": False})
    return pd.DataFrame(rows)


FOUND = trials(
    fast={0: [[0, 10], [4, 0], [100, 0]], 1: [[0, 10], [8, 5], [100, 5]]},
    slow={0: [[0, 10], [8, 5], [100, 0]], 1: [[0, 10], [16, math.nan], [100, 0]]},
    dead={0: [], 1: []},
)


def test_a_gap_is_what_is_left_of_the_way_from_the_start_to_the_best() -> None:
    found = targets.gaps(FOUND)
    of = found[(found["contestant"] == "slow") & (found["seed"] == 0)]
    assert list(of["gap"]) == [1.0, 0.5, 0.0]
    assert found["gap"].max() == math.inf
    higher = FOUND.assign(
        higher_is_better=True, curve=[[[x, -y] for x, y in c] for c in FOUND["curve"]]
    )
    assert targets.gaps(higher).equals(found)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("score", [-math.inf, math.inf, math.nan])
def test_a_score_that_is_not_finite_takes_no_target_from_the_others(score: float) -> None:
    broken = trials(broken={0: [[0, 10], [50, score], [100, score]], 1: [[0, score]]})
    found = targets.gaps(pd.concat([FOUND, broken], ignore_index=True))
    others = found[found["contestant"] != "broken"]
    assert others.equals(targets.gaps(FOUND))
    assert list(found[found["contestant"] == "broken"]["gap"]) == [1.0] + 3 * [math.inf]
    nobody = targets.gaps(broken.assign(curve=[[[0, score]], []]))
    assert list(nobody["gap"]) == [math.inf]


def test_targets_are_reached_when_the_curve_is_below_them() -> None:
    found = targets.reached(FOUND, [0.5, 0.1]).set_index(["contestant", "seed", "target"])
    when = found["evaluations"]
    assert when["fast", 0, 0.5] == when["fast", 0, 0.1] == 4
    assert when["fast", 1, 0.5] == 8
    assert when["fast", 1, 0.1] == math.inf
    assert when["slow", 1, 0.1] == 100
    assert when["dead", 0, 0.5] == math.inf


def test_profiles_are_ratios_to_the_fastest() -> None:
    found = targets.profile(FOUND, 0.1)
    np.testing.assert_array_equal(found["fast"], [1.0, math.inf])
    np.testing.assert_array_equal(found["slow"], [1.0, 25.0])
    np.testing.assert_array_equal(found["dead"], [math.inf, math.inf])


def test_the_summary_ranks_medians_and_counts_targets() -> None:
    table = targets.summary(FOUND).set_index("contestant")
    assert table.loc["slow", "targets reached"] == 1.0
    assert table.loc["dead", "targets reached"] == 0.0
    assert table.loc["slow", "first"] == 1
    assert list(table.loc[["slow", "fast", "dead"], "mean rank"]) == [1.0, 2.0, 3.0]


CASES = """
import torch
from zoopt.bench import Case

def parabola(seed):
    x = torch.nn.Parameter(torch.ones(3))
    return Case([x], lambda: (x**2).sum(), lambda: float((x**2).sum()))
"""


def test_the_command_runs_a_study_of_ones_own_and_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cases_of_mine.py").write_text(CASES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    who = ["--contestants", "mezo", "nevergrad:OnePlusOne"]
    sizes = ["--budget", "12", "--seeds", "2", "--tuning", "2"]
    assert main(["bench", "run", "cases_of_mine:parabola", *who, *sizes]) == 0
    folder = tmp_path / "bench" / "cases_of_mine-parabola"
    page = (folder / "report.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,[^"]{1000,}"', page)) == 3
    assert "nevergrad:OnePlusOne" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    written = (folder / "report.md").read_text()
    (folder / "report.md").unlink()
    assert main(["bench", "report", str(folder)]) == 0
    assert (folder / "report.md").read_text() == written
    assert "## parabola" in written
    capsys.readouterr()
    assert main(["bench", "list"]) == 0
    assert "digits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digit"], "Did you mean 'digits'"),
        (["run", "json:nothing"], "module 'json' has no 'nothing'"),
        (["run", "json:__doc__"], "expected one that takes a seed and returns a zoopt.bench.Case"),
        (["run", "nowhere:case"], "there is no module 'nowhere' for 'nowhere:case'"),
        (["report", "nowhere"], "nowhere does not exist"),
        (["run", "digits", "--contestants", "spza:4"], "no contestant is called 'spza:4'"),
        (["run", "digits", "--contestants", "nevergrad:NGOp"], "Did you mean 'NGOpt'"),
        (["run", "digits", "--contestants", "evotorch:SNS"], "Did you mean 'SNES'"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_comparison_writes_its_report(tmp_path: Path) -> None:
    def case(seed: int) -> zoopt.bench.Case:
        import torch

        x = torch.nn.Parameter(torch.ones(2))
        return zoopt.bench.Case([x], lambda: (x**2).sum(), lambda: float((x**2).sum()))

    with pytest.raises(ValueError, match="no final trials"):
        zoopt.bench.report.write(tmp_path / "trials.jsonl", tmp_path)
    zoopt.benchmark(case, ["mezo"], budget=4, seeds=1, folder=tmp_path)
    assert "## problem" in (tmp_path / "report.md").read_text()
