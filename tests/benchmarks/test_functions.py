"""The study's problems are what they are called, and the rank's rate is what theory has."""

import pytest
import torch

from benchmarks.functions import problems, rank


def test_functions_have_their_optimum_where_they_are_said_to():
    assert problems.ellipsoid(torch.zeros(20)) == 0.0
    assert problems.ellipsoid(torch.eye(20)[-1]) == pytest.approx(1000.0)
    assert problems.rosenbrock(torch.ones(20)) == 0.0


@pytest.mark.parametrize("problem", problems.PROBLEMS, ids=lambda problem: problem.name)
def test_a_problems_cases_follow_from_their_seed(problem):
    first, again, other = (problem.make(seed) for seed in (1, 1, 2))
    assert first.score() == again.score() != other.score()
    with torch.no_grad():
        assert float(first.closure()) == float(again.closure())


def test_progress_follows_the_rank_and_not_the_dimension():
    for rank_, d in ((10, 100), (10, 10_000)):
        rates = rank.measured(rank_, d, 3 * rank_, seeds=3)
        assert 0.6 < sum(rates) / len(rates) < 1.6
