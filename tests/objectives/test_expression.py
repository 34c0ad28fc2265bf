"""Expressions of objectives, as they are written in a config file."""

import re

import pytest

from zoopt.objectives.expression import Bound, Expression, is_combination, parse


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("f1+accuracy", [(1, "f1"), (1, "accuracy")]),
        ("2*f1 - 1e-3 * mcc -.5*mae", [(2, "f1"), (-0.001, "mcc"), (-0.5, "mae")]),
        ("f1\n  - 3 * mcc\n", [(1, "f1"), (-3, "mcc")]),
        (
            "keywords(words=['a']) - 0.1 * words(target=3)",
            [(1, "keywords(words=['a'])"), (-0.1, "words(target=3)")],
        ),
        (
            r"format_match(pattern=r'(a|\') - b)') - f1",
            [(1, r"format_match(pattern=r'(a|\') - b)')"), (-1, "f1")],
        ),
        ('m(a="""it\'s " - """) + f1', [(1, 'm(a="""it\'s " - """)'), (1, "f1")]),
        (
            "a.b:C.d(of={'x': 'y:z'}) - 2 * my-package.rewards:polite",
            [(1, "a.b:C.d(of={'x': 'y:z'})"), (-2, "my-package.rewards:polite")],
        ),
        ("größe - é.b:c(a='ä') + d.e", [(1, "größe"), (-1, "é.b:c(a='ä')"), (1, "d.e")]),
    ],
)
def test_sums(text, terms):
    assert is_combination(text)
    assert parse(text) == Expression(tuple(terms), ())


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("mcc >= 0.5", [Bound("mcc", 0.5, False)]),
        ("mcc>=-.5 weight 2e1", [Bound("mcc", -0.5, False, 20.0)]),
        (
            "words( weight = 3) <= 1 weight 2 and a.b:c(x=1) >= 2",
            [Bound("words( weight = 3)", 1, True, 2.0), Bound("a.b:c(x=1)", 2, False)],
        ),
        (
            "keywords(words=['salt and pepper', ' subject to ']) <= 0.1\n  and f1 >= 1",
            [
                Bound("keywords(words=['salt and pepper', ' subject to '])", 0.1, True),
                Bound("f1", 1, False),
            ],
        ),
    ],
)
def test_bounds(bounds, expected):
    text = f"accuracy subject to {bounds}"
    assert is_combination(text)
    assert parse(text) == Expression(((1.0, "accuracy"),), tuple(expected))


@pytest.mark.parametrize(
    "name",
    [
        "f1_macro",
        "words(target=-4 - 1)",
        "my-package.rewards:polite",
        "my-package.rewards:polite(a='b - c subject to d')",
        "format_match(pattern='a*(b|c) - d')",
        "no such name",
        "",
        "words(target=",
    ],
)
def test_one_metric_is_no_expression(name):
    assert not is_combination(name)


@pytest.mark.parametrize("name", ["f1-macro", "is", "half * f1", "a.b", "f1:macro"])
def test_a_known_name_is_read_as_one_whatever_its_characters(name):
    known = ["f1", "f1-macro", "is", "half * f1", "a.b", "f1:macro"]
    assert not is_combination(name, known)
    assert not is_combination(f"{name}(to=1)", known)
    assert parse(f"2*{name} - {name}(to=1)", known).terms == ((2, name), (-1, f"{name}(to=1)"))


def test_a_known_name_is_not_found_within_others():
    assert parse("a.b:c + c.a.b + a.b.c + a.b", known=["a.b"]).names == (
        "a.b:c",
        "c.a.b",
        "a.b.c",
        "a.b",
    )


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("f1 - 0.1 * ", "its end (invalid syntax)"),
        ("f1 - words(a=[1], c=", "'(a=[1], c=' ('(' was never closed)"),
        ("- f1", "'- f1'"),
        ("f1 - (mcc - mae)", "'mcc - mae'"),
        ("f1 - words(a='b') * 2", "\"words(a='b') * 2\""),
        ("f1 * mcc", "'f1 * mcc'"),
        ("f1 / 2", "'f1 / 2'"),
        ("f1 + 3", "'3'"),
        ("f1 mcc + mae", "'mcc + mae' (invalid syntax)"),
    ],
)
def test_a_sum_that_cannot_be_parsed_says_where_and_how_to_write_it(text, at):
    assert is_combination(text)
    told = f"objective {text!r} cannot be parsed at {at}: write it as in 'f1 - 0.1 * repetition"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        parse(text)


def test_bounds_without_a_sum_bound_nothing():
    assert is_combination(" subject to f1 >= 1")
    with pytest.raises(ValueError, match="names no metric to tune"):
        parse(" subject to f1 >= 1")


@pytest.mark.parametrize(
    "bound",
    ["f1 < 3", "f1 <= mcc", "3 >= f1", "1 <= f1 <= 3", "f1", "f1 <= 3 weight -1", "f1 <= ("],
)
def test_a_bound_that_cannot_be_parsed_says_how_to_write_it(bound):
    told = f"constraint {bound!r} of 'mae subject to {bound} and mcc >= 0' cannot be parsed: write"
    with pytest.raises(ValueError, match=rf"^{re.escape(told)} it as in 'words <= 40' or "):
        parse(f"mae subject to {bound} and mcc >= 0")
