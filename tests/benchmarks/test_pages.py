import pandas as pd
import pytest

from benchmarks import pages, publish


def test_a_table_becomes_markdown():
    table = pd.DataFrame({"what": ["a|b", None], "MB": [1234.5, 2.0], "ratio": [1.0, float("nan")]})
    assert pages.markdown(table, {"MB": ",.0f"}).splitlines() == [
        "| what | MB | ratio |",
        "| --- | ---: | ---: |",
        "| a\\|b | 1,234 | 1 |",
        "|  | 2 |  |",
    ]


def test_a_table_without_rows_is_no_text():
    assert pages.markdown(pd.DataFrame({"a": []})) == ""


def test_a_marked_block_is_replaced_and_the_rest_is_left(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- b -->\nold\n<!-- /b -->\nafter\n", encoding="utf-8")
    for text in ("| 1 \\d |\n", "new\n"):
        pages.replace(page, "b", text)
        expected = f"before\n<!-- b -->\n{text}<!-- /b -->\nafter\n"
        assert page.read_text(encoding="utf-8") == expected


def test_a_missing_block_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="0 blocks"):
        pages.replace(page, "b", "new")


def test_the_page_of_benchmarks_has_the_committed_numbers():
    page = publish.PAGE.read_text(encoding="utf-8")
    for block, table in publish.tables().items():
        current = f"<!-- {block} -->\n{table}<!-- /{block} -->"
        assert current in page, f"{block}: run python -m benchmarks.publish"
