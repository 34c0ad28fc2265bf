"""An oracle that only compares: a function, or a person."""

import numpy as np
import pytest
import torch

import zoopt
from zoopt.objectives.metric import Parts
from zoopt.probes.ranks import ranks

ESTIMATORS = [zoopt.Dueling(eps=0.1, n=3), zoopt.Ranking(eps=0.1, n=5)]


def closer(a: torch.Tensor, b: torch.Tensor) -> float:
    """Which point is closer to (1, …, 1), and nothing more."""
    return float((b - 1).norm() > (a - 1).norm()) - float((b - 1).norm() < (a - 1).norm())


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("engine", ["copy", "inplace", "overlay"])
def test_comparing_is_the_same_as_the_losses_that_order_alike(estimator, engine) -> None:
    ends = []
    for ask in (
        lambda opt, x: opt.step(lambda: x.clone(), compare=closer),
        lambda opt, x: opt.step(lambda: (x - 1).norm()),
    ):
        x = torch.nn.Parameter(torch.zeros(6))
        opt = zoopt.ZOOptimizer([x], lr=0.05, estimator=estimator, engine=engine, seed=1)
        for _ in range(100):
            ask(opt, x)
        ends.append(x.detach().clone())
    assert torch.equal(*ends)
    assert (ends[0] - 1).norm() < 0.5


@pytest.mark.parametrize("engine", ["copy", "inplace"])
@pytest.mark.parametrize("returned", ["parameter", "view", "buffer", "containers", "array"])
def test_what_a_closure_returns_is_compared_as_it_was_at_its_probe(engine, returned) -> None:
    x = torch.nn.Parameter(torch.zeros(6))
    buffer = torch.empty(6)
    said = {
        "parameter": lambda: x,
        "view": lambda: x[1:],
        "buffer": lambda: buffer.copy_(x),
        "containers": lambda: [{"x": x}],
        "array": lambda: x.detach().numpy(),
    }[returned]

    def compare(a, b) -> float:
        a, b = ((s[0]["x"] if isinstance(s, list) else torch.as_tensor(s)) for s in (a, b))
        return closer(a, b)

    opt = zoopt.ZOOptimizer([x], 0.05, zoopt.Dueling(eps=0.1), engine=engine, seed=1)
    opt.step(said, compare=compare)
    assert sorted(opt.estimated.losses) == [0.0, 1.0]
    assert not x.detach().eq(0).any()


def test_an_object_that_is_returned_again_is_refused_and_values_are_not() -> None:
    model = torch.nn.Linear(2, 1)
    opt = zoopt.ZOOptimizer(model, lr=0.1, estimator="dueling")
    for again in (model, {1, 2}):
        with pytest.raises(TypeError, match=r"the same .* at two probes"):
            opt.step(lambda again=again: again, compare=lambda a, b: 0)
    for again in ("yes", 1, (), None):
        opt.step(lambda again=again: again, compare=lambda a, b: 0)
        assert opt.estimated.coefficients == (0.0,)


def test_outputs_of_a_population_are_compared_probe_by_probe() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2, bias=False)
    inputs = torch.randn(5, 3)
    more = lambda a, b: float(a[:, 0].sum() - b[:, 0].sum())  # noqa: E731
    records = []
    for engine in ("batched", "overlay"):
        opt = zoopt.ZOOptimizer(
            model, lr=0.0, estimator=zoopt.Dueling(n=4), direction="lowrank", engine=engine
        )
        opt.recorder = records.append
        opt.step(lambda k: k.per_probe(model(k.expand(inputs))), compare=more)
    assert records[0].losses == records[1].losses
    assert set(records[0].losses) == {0.0, 1.0}


def test_a_run_of_comparisons_is_replayed_without_asking_again() -> None:
    x, y = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))
    opt = zoopt.ZOOptimizer([x], lr=0.1, estimator=zoopt.Dueling(eps=0.1, n=2), seed=4)
    records: list[zoopt.StepRecord] = []
    opt.recorder = records.append
    for _ in range(20):
        assert opt.step(lambda: x.clone(), compare=closer) is None
    again = zoopt.ZOOptimizer([y], lr=0.1, estimator=zoopt.Dueling(eps=0.1, n=2), seed=4)
    for record in records:
        again.repeat(record)
    assert torch.equal(x, y)


def test_contradictions_of_a_person_still_give_an_order() -> None:
    beats = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}
    compare = lambda a, b: ((a, b) in beats) - ((b, a) in beats)  # noqa: E731
    found = ranks(["rock", "paper", "scissors"], compare, group=3)
    assert sorted(found) == [0.0, 1.0, 2.0]


def test_groups_are_compared_among_themselves_only() -> None:
    asked: list[tuple[int, int]] = []

    def compare(a: int, b: int) -> int:
        asked.append((a, b))
        return a - b

    ranks([1, 2, 3, 4], compare, group=2)
    assert sorted(map(sorted, asked)) == [[1, 2], [3, 4]]


@pytest.mark.parametrize("judge", ["fair", "same to all", "at random"])
def test_nobody_is_asked_twice_about_the_same_two(judge) -> None:
    asked: list[frozenset[int]] = []
    rng = np.random.default_rng(0)

    def compare(a: int, b: int) -> int:
        asked.append(frozenset((a, b)))
        return {"fair": a - b, "same to all": 0, "at random": rng.integers(-1, 2)}[judge]

    for seed in range(20):
        ranks(rng.permutation(9), compare, group=9, seed=seed)
        assert len(asked) == len({*asked}) < 9 * 8 / 2
        asked.clear()


def test_which_probe_is_shown_first_is_drawn_and_a_resumed_run_draws_alike() -> None:
    """Who always likes the first one better says nothing, and moves θ nowhere in particular."""

    def coefficients(start: int) -> list[float]:
        x = torch.nn.Parameter(torch.zeros(2))
        opt = zoopt.ZOOptimizer([x], 0.0, zoopt.Dueling(eps=0.1), seed=3)
        opt.steps = start
        found = []
        for _ in range(start, 100):
            opt.step(lambda: x, compare=lambda a, b: 1)
            found += opt.estimated.coefficients
        return found

    assert 30 < coefficients(0).count(1.0) < 70
    assert coefficients(0)[60:] == coefficients(60)


@pytest.mark.parametrize("kind", [bool, np.bool_, torch.tensor])
def test_a_bool_says_whether_the_first_is_better(kind) -> None:
    for seed in range(8):
        assert ranks([1, 2], lambda a, b: kind(a > b), group=2, seed=seed) == [1.0, 0.0]


def test_an_estimator_that_needs_numbers_is_refused_before_anything_is_asked() -> None:
    x = torch.nn.Parameter(torch.zeros(2))
    opt = zoopt.ZOOptimizer([x], estimator="mezo")
    with pytest.raises(TypeError, match="estimator='dueling' or 'ranking'"):
        opt.step(lambda: pytest.fail("asked"), compare=closer)


@pytest.mark.parametrize("said", ["A", None, float("nan")])
def test_an_answer_that_is_no_verdict_is_named_and_nothing_moves(said) -> None:
    x = torch.nn.Parameter(torch.ones(3))
    opt = zoopt.ZOOptimizer([x], lr=0.1, estimator="dueling", engine="overlay")
    with pytest.raises(TypeError, match=r"compare\(a, b\) returned"):
        opt.step(lambda: x.clone(), compare=lambda a, b: said)
    assert torch.equal(x.detach(), torch.ones(3))


def test_a_run_tunes_on_comparisons_and_reports_how_often_it_is_preferred(tmp_path):
    """What the function prefers is the number closer to 2x; it never says how close."""
    rows = [{"x": i / 10, "label": 2 * i / 10} for i in range(40)]
    task = zoopt.Regression(
        rows[::2], rows[1::4], rows[3::4], collate=lambda b: torch.tensor([[r["x"]] for r in b])
    )

    def prefers(a, b, references):
        return abs(b - references).sum() - abs(a - references).sum()

    ends = []
    for part in ("whole", "twice", "twice"):
        torch.manual_seed(0)
        model = torch.nn.Linear(1, 1)
        result = zoopt.tune(
            model,
            task=task,
            objective=zoopt.comparison(prefers, needs="values"),
            lr=0.05,
            eps=0.05,
            steps=80,
            run_dir=tmp_path / part,
            quiet=True,
        )
        ends.append(model.weight.item())
    assert ends[0] == ends[1] == ends[2]
    row = result.report.row("prefers")
    assert row.before.value == 0.5
    assert row.after.low > 0.5
    assert "dueling" in (tmp_path / "whole" / "config.yaml").read_text()


def test_what_was_not_anchored_is_an_error():
    task = zoopt.Regression([{"x": 1.0, "label": 0.0}], collate=lambda b: torch.ones(1, 1))
    metric = zoopt.comparison(lambda a, b: 0, needs="values", name="mine")
    with pytest.raises(ValueError, match=r"call task\.anchor"):
        zoopt.tasks.references_for(task, metric, task.train)


def always_first(a, b):
    """Who says so of whatever is shown."""
    return 1


def test_a_judge_who_likes_what_is_shown_first_prefers_no_model():
    texts = np.array([str(i) for i in range(20)], dtype=object)
    others = np.array([f"{text}!" for text in texts], dtype=object)
    metric = zoopt.comparison(always_first)
    assert metric(others, Parts((texts, texts))) == 0.5
    assert metric.each(others, Parts((texts, texts))) == [1.0, 0.0] * 10


def test_outputs_that_are_equal_tie_and_nobody_is_asked():
    metric = zoopt.comparison(lambda a, b: pytest.fail("asked"), needs="values", name="mine")
    said = np.arange(5.0)
    assert metric(said, Parts((said.copy(), said))) == 0.5
    assert metric.prefers(said, said.copy(), said) == 0.0


def with_a_default(a, b, temperature=0.0):
    return float(temperature == 0.0)


def by_keyword(a, b, *, model="m"):
    return float(model == "m")


def with_references(a, b, truth):
    return float(truth == ["r"])


def named(a, b, model="m", references=None):
    return float(model == "m" and references == ["r"])


@pytest.mark.parametrize("judge", [with_a_default, by_keyword, with_references, named])
def test_references_go_where_they_are_meant_to_go(judge):
    assert zoopt.comparison(judge).prefers(["a"], ["b"], ["r"]) == 1.0


def test_a_judge_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="cannot be called with 2 arguments"):
        zoopt.comparison(lambda a: 0)
    with pytest.raises(TypeError, match="cannot be called with 3 arguments"):
        zoopt.comparison(lambda a, b, c, d: 0)


def test_a_ranking_that_grows_is_of_all_its_probes():
    x = torch.nn.Parameter(torch.zeros(4))
    optimizer = zoopt.ZOOptimizer([x], 0.0, zoopt.Ranking(eps=0.1, n=2))
    for n in (2, 6):
        optimizer.estimator.n = n
        optimizer.step(lambda: x.sum().item(), compare=lambda a, b: b - a)
        assert sorted(optimizer.estimated.losses) == list(range(n))
