"""COCO's suites are run to the evaluation, and read through cocopp."""

import pytest

pytest.importorskip("cocoex")
pytest.importorskip("cocopp")

from benchmarks.bbob import run, summary


@pytest.mark.filterwarnings("ignore")  # cocopp's own
def test_runs_of_a_suite_are_read_as_shares_of_targets(tmp_path):
    tiny = run.Experiment("bbob", "2", "1", "1", 20)
    names = ("OnePlusOne", "pycma")
    for name in names:
        run.run(tiny, name, tmp_path)
        assert (tmp_path / "exdata" / f"bbob-{name}" / "done").exists()
    summary.write(tmp_path / "exdata", tmp_path, [tiny], names)
    found = summary.runs(tmp_path / "exdata", "bbob", names)
    assert len(found) == len(names) * len(summary.TARGETS)
    for _, of in found.groupby("search"):
        assert of["evaluations"].is_monotonic_increasing
        assert of["evaluations"].iloc[0] <= 20
    lines = (tmp_path / "bbob.csv").read_text().splitlines()
    assert len(lines) == 1 + len(names)
    assert (tmp_path / "bbob.png").stat().st_size > 1000


def test_a_search_stops_at_its_budget():
    problem = run.Experiment("bbob", "3", "8", "1", 10).problems().get_problem(0)
    run.minimize(run.SEARCHES["RandomSearch"], problem, 17)
    assert problem.evaluations == 17


def test_every_search_has_a_colour():
    assert set(run.SEARCHES) == set(summary.COLORS)
