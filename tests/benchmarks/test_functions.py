"""The study's problems are what they are called, and the rank's rate is what theory has."""

import pandas as pd
import pytest
import torch

from benchmarks.functions import cost, rank
from zoopt.bench import problems

EVERY = [problem for group in problems.GROUPS.values() for problem in group()]


def at(problem, point):
    case = problem.make(0)
    (x,) = case.source
    with torch.no_grad():
        x.copy_(point)
        return case.score()


def test_functions_have_their_optimum_where_they_are_said_to():
    assert at(problems.rosenbrock(20), torch.ones(20)) == 0.0
    assert at(problems.rosenbrock(20), torch.zeros(20)) == 1.0
    assert at(problems.quadratic(20, 3), torch.zeros(20)) == 0.0


def test_a_quadratics_hessian_has_the_rank_it_is_named_for():
    case = problems.quadratic(30, 4).make(0)
    (x,) = case.source
    columns = []
    for unit in torch.eye(30):
        with torch.no_grad():
            x.copy_(unit)
        columns.append(torch.autograd.grad(case.closure(), x)[0])
    eigenvalues = torch.linalg.eigvalsh(torch.stack(columns))
    torch.testing.assert_close(eigenvalues[-4:], torch.ones(4), atol=1e-5, rtol=1e-5)
    assert eigenvalues[:-4].abs().max() < 1e-5


def test_noise_is_in_the_objective_and_not_in_the_score():
    quiet, noisy = (problems.rosenbrock(50, noise).make(3) for noise in (0.0, 0.1))
    with torch.no_grad():
        score = quiet.score()
        assert score == noisy.score() == float(quiet.closure())
        values = torch.tensor([float(noisy.closure()) for _ in range(400)])
    assert float(values.std()) == pytest.approx(40.2, rel=0.2)
    assert float(values.mean()) == pytest.approx(score, abs=10)


def test_minibatches_follow_the_global_generator_and_the_whole_set_does_not():
    for batch in (problems.BATCH, None):
        case = problems.digits(batch=batch).make(0)
        with torch.no_grad():
            torch.manual_seed(1)
            first = float(case.closure())
            torch.manual_seed(1)
            assert float(case.closure()) == first
            assert (float(case.closure()) == first) == (batch is None)


@pytest.mark.parametrize("problem", EVERY, ids=lambda problem: problem.name)
def test_a_problems_cases_follow_from_their_seed_and_have_its_variables(problem):
    first, again, other = (problem.make(seed) for seed in (1, 1, 2))
    assert first.score() == again.score() != other.score()
    source = first.source
    parameters = source.parameters() if isinstance(source, torch.nn.Module) else source
    assert sum(p.numel() for p in parameters) == problem.d


def test_progress_follows_the_rank_and_not_the_dimension():
    means = []
    for d in (100, 10_000):
        rates = rank.measured(10, d, 30, seeds=3)
        means.append(sum(rates) / len(rates))
        assert 0.6 < means[-1] < 1.6
    assert means[0] != means[1]  # other directions, not the same numbers again


def test_the_cost_has_a_row_for_each_method_or_its_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "MEMORY", 12 << 30)
    kept = {name: cost.METHODS[name] for name in ("zoopt MeZO", "nevergrad OnePlusOne")}
    monkeypatch.setattr(cost, "METHODS", kept)
    found = cost.table((1000,), evaluations=4)
    assert list(found["method"]) == list(kept)
    assert (found["draws"] > 0).all()
    assert (found["mb"] >= 0).all()
    cost.plot(
        pd.concat([found, pd.DataFrame([{"method": "x", "reason": "n"}])]), tmp_path / "c.png"
    )
    assert (tmp_path / "c.png").stat().st_size > 1000
