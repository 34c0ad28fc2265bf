"""Objectives with arguments, in a string and in Python."""

import functools
import re

import pytest

import zoopt
from zoopt.objectives import registry
from zoopt.objectives.resolve import resolve
from zoopt.support.names import joined, split

ONE = [{"prompt": "Well?"}]


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("f1", "f1", {}),
        (" f1\n", "f1", {}),
        ("f1()", "f1", {}),
        ("words(target=40)", "words", {"target": 40}),
        ("words( target = -4.5 )", "words", {"target": -4.5}),
        (r"m(a='\\d(', b=[1, 'x'], c=None)", "m", {"a": r"\d(", "b": [1, "x"], "c": None}),
        ("their.rewards:polite(a='b:c')", "their.rewards:polite", {"a": "b:c"}),
    ],
)
def test_a_name_and_its_arguments(text, name, arguments):
    assert split(text) == (name, arguments)
    assert split(joined(name, arguments)) == (name, arguments)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("words(target=40", r"'words\(target=40' cannot be parsed \('\(' was never closed\)"),
        ("words(target=)", "cannot be parsed"),
        ("words(target=1, target=2)", "gives target twice"),
        ("words(40)", "has no name for argument 40"),
        ("words(**{'target': 4})", "has no name for argument {'target': 4}"),
        ("words(target=size)", "size in .* is not a number, quoted string, list"),
        ("words(target=open('x'))", r"open\('x'\) in .* is not a number"),
        ("words(target={[1]})", r"{\[1\]} in .* is not a number"),
        ("words(target=4) + 1", "has something after its closing parenthesis"),
        ("words(target=4)(a=1)", "has something after its closing parenthesis"),
    ],
)
def test_what_cannot_be_read_is_told_with_an_example(text, told):
    with pytest.raises(ValueError, match=rf"{told}.*: write .* name=literal, .*words\(target=40"):
        split(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("format_match", r"'format_match' needs pattern: write format_match\(pattern=\.\.\.\)"),
        ("format_match(pattern=...)", r"needs pattern: .* with a value in place of \.\.\."),
        ("words(target=...)", r"needs target: write words\(target=\.\.\.\) with a value"),
        ("words(targt=4)", r"no argument of 'words' is called 'targt'\. Did you mean 'target'\?"),
        ("f1(beta=2)", "'f1' takes no arguments, but was given 'beta'"),
        ("zoopt_objectives.patterns:keywords", "'keywords' needs words: write keywords"),
        ("zoopt_objectives.rewards:words(size=4)", "no argument of 'words' is called 'size'"),
    ],
)
def test_arguments_that_are_not_taken_or_are_missing(text, told):
    with pytest.raises(ValueError, match=told):
        resolve(text)


def test_a_function_that_needs_an_argument_is_not_tuned_without():
    keywords = registry.objectives()["keywords"].function
    with pytest.raises(ValueError, match="'keywords' needs words"):
        resolve(keywords)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'words'"):
        keywords(["a"], ONE)


def test_the_name_says_what_it_was_given_and_makes_it_again():
    metric = zoopt.get_objective("words(target=3)")
    assert metric.name == "words(target=3)"
    assert metric.about == zoopt.get_objective("words").about
    assert metric(["one two"], ONE) == 1.0
    again = resolve(metric.name)
    assert (again.name, again(["one two"], ONE)) == (metric.name, 1.0)
    assert zoopt.get_objective("words", target=3).name == metric.name
    assert zoopt.get_objective("words(target=3)", target=4).name == "words(target=4)"
    # What is given once can be given anew, but is not asked for.
    assert registry.bound(metric, {}) is metric
    assert zoopt.get_objective("words") is zoopt.get_objective("words")


def test_arguments_in_python_may_be_anything():
    metric = zoopt.get_objective("format_match", pattern=re.compile("A.", re.IGNORECASE))
    assert metric(["ab"], ONE) == 1.0


def test_a_path_to_a_function_of_others_takes_its_arguments():
    from sklearn.metrics import fbeta_score

    metric = resolve("sklearn.metrics:fbeta_score(beta=2)")
    expected = resolve(functools.partial(fbeta_score, beta=2))([1, 1, 0], [1, 0, 1])
    assert metric([1, 1, 0], [1, 0, 1]) == expected


def test_a_colon_among_the_arguments_makes_no_path():
    assert registry.is_path("package.module:name(pattern='a')")
    assert not registry.is_path("format_match(pattern='a:b')")
