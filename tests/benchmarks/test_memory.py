import math

import pandas as pd

from benchmarks.memory import extrapolation, run


def rows_of(**taken):
    return pd.DataFrame(
        [
            {"model": model, "method": method, "bytes": taken, "reason": None}
            for method, by_model in taken.items()
            for model, taken in by_model.items()
        ]
    )


def test_a_line_through_two_models_is_exact_for_what_grows_like_one():
    rows = rows_of(
        forward={"other": 9.0, "small": 7 + 4 * 100.0, "large": 7 + 4 * 1000.0},
        adam={"small": 1600.0, "large": math.nan},
        none={"other": 5.0},
    )
    found = extrapolation.extrapolated(rows, {"small": 100, "large": 1000}, 10_000)
    assert found.to_dict("records") == [
        {
            "method": "forward",
            "bytes a parameter": 4.0,
            "bytes": 40_007.0,
            "from": "small and large",
        },
        {"method": "adam", "bytes a parameter": 16.0, "bytes": 160_000.0, "from": "small"},
    ]


def test_models_of_opts_shape_have_the_published_numbers_of_parameters():
    """Zhang et al. 2022, table 1, and 13B: 40 layers of 12 h² + 13 h, embeddings, a norm."""
    assert extrapolation.parameters("125m") == 125_239_296
    h, layers = 5120, 40
    embeddings = (50_272 + 2048 + 2) * h
    assert extrapolation.parameters("13b") == layers * (12 * h * h + 13 * h) + embeddings + 2 * h


def test_the_page_has_the_committed_numbers():
    page = run.PAGE.read_text(encoding="utf-8")
    for block, text in run.tables(*run.committed()).items():
        written = f"<!-- {block} -->\n{text.rstrip()}\n<!-- /{block} -->"
        assert written in page, f"{block}: python -m benchmarks.memory.run --render"
    assert "extrapolated, not measured: OPT-13B's shape" in page
