"""What is read from a file of trials."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from zoopt.bench.results import TUNING_SEED, rows, standings


def line(score: float, setting: dict[str, float], seed: int, **more: Any) -> str:
    row = {
        "problem": "p",
        "contestant": "c",
        "setting": json.dumps(setting),
        "seed": seed,
        "budget": 10,
        "score": score,
        "curve": [],
        "evaluations": 10,
        "forwards": 10,
        "seconds": 1.0,
        "peak_mb": 1.0,
        "algorithm": "c",
        "stop": "budget",
    }
    return json.dumps({**row, **more}) + "\n"


def test_a_setting_chosen_at_an_end_of_what_was_tried_is_told(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    tried = [{"lr": lr, "eps": eps} for lr, eps in zip(range(6), (1.0, 2.0) * 3, strict=True)]
    text = "".join(line(1.0, setting, TUNING_SEED) for setting in tried)
    file.write_text(text + line(1.0, tried[5], 0) + line(1.0, tried[5], 0, contestant="other"))
    assert list(standings(rows(file))["edge"]) == ["lr highest", ""]
    for setting, edge in ((tried[1], "lr lowest"), (tried[2], ""), (tried[3], "")):
        file.write_text(text + line(1.0, setting, 0))
        assert list(standings(rows(file))["edge"]) == [edge]


def test_trials_of_a_setting_that_is_chosen_no_more_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    before = "".join(line(5.0, {"lr": 0.1}, seed) for seed in range(3))
    widened = line(1.0, {"lr": 0.01}, TUNING_SEED)
    other = line(5.0, {"lr": 0.1}, 0, budget=20)
    file.write_text(before + other + widened + line(1.0, {"lr": 0.01}, 0))
    counted = rows(file)
    assert list(counted["score"]) == [5.0, 1.0]
    assert list(counted["budget"]) == [20, 10]
    back = rows(file, {("p", "c", 10): json.dumps({"lr": 0.1})})
    assert list(back["score"]) == [5.0] * 4


@pytest.mark.parametrize("higher", [False, True])
def test_the_best_stands_first_whichever_way_is_better(tmp_path: Path, higher: bool) -> None:
    file = tmp_path / "trials.jsonl"
    scores = {"a": 0.1, "b": 0.9, "dead": math.nan}
    text = [line(s, {}, 0, contestant=n, higher_is_better=higher) for n, s in scores.items()]
    file.write_text("".join(text))
    expected = ["b", "a", "dead"] if higher else ["a", "b", "dead"]
    assert list(standings(rows(file))["contestant"]) == expected


def test_a_trial_without_a_score_counts_as_the_worst(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    scores = (1.0, 2.0, 3.0, math.nan, math.nan)
    file.write_text("".join(line(score, {}, seed) for seed, score in enumerate(scores)))
    (row,) = standings(rows(file)).to_dict("records")
    assert (row["q1"], row["median"], row["q3"]) == (2.0, 3.0, math.inf)
