"""Weighted sums of metrics, and bounds on them."""

import numpy as np
import pytest
import torch

import zoopt
from zoopt.objectives.combination import blend
from zoopt.objectives.metric import Parts
from zoopt.objectives.resolve import resolve
from zoopt.tasks import TaskObjective

LOGITS = np.array([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0], [0.0, 3.0]])
TRUTH = [0, 0, 1, 1]


@pytest.fixture
def task():
    rows = [{"x": row, "label": str(label)} for row, label in zip(LOGITS, TRUTH, strict=True)]
    collate = lambda batch: torch.tensor(np.array([row["x"] for row in batch]))  # noqa: E731
    return zoopt.HeadClassification(rows, labels=["0", "1"], collate=collate)


def value(task, metric):
    return TaskObjective(task, metric).value(torch.nn.Identity(), task.train)


@pytest.fixture(autouse=True)
def parameterless(monkeypatch):
    monkeypatch.setattr("zoopt.tasks.head.device_of", lambda model: torch.device("cpu"))


def alone(task, name):
    return value(task, zoopt.get_objective(name))


def test_a_weighted_sum_is_the_sum_of_its_parts_each_given_what_it_needs(task):
    both = zoopt.combined("accuracy - 0.5 * cross_entropy + 2*f1")
    expected = alone(task, "accuracy") - 0.5 * alone(task, "cross_entropy") + 2 * alone(task, "f1")
    assert value(task, both) == pytest.approx(expected, rel=1e-12)
    assert both.higher_is_better


@pytest.mark.parametrize(
    ("bound", "penalty"), [("accuracy >= 0.4", 0.0), ("accuracy >= 0.9 weight 3", 3 * 0.4)]
)
def test_a_broken_bound_makes_the_number_worse_and_a_kept_one_does_not(task, bound, penalty):
    assert alone(task, "accuracy") == 0.5
    lower = zoopt.combined(f"cross_entropy subject to {bound}")
    assert value(task, lower) == pytest.approx(alone(task, "cross_entropy") + penalty)
    higher = zoopt.combined(f"f1 subject to {bound}")
    assert value(task, higher) == pytest.approx(alone(task, "f1") - penalty)


def test_several_bounds(task):
    both = zoopt.combined("f1 subject to accuracy >= 1 and cross_entropy <= 0 weight 2")
    expected = alone(task, "f1") - 0.5 - 2 * alone(task, "cross_entropy")
    assert value(task, both) == pytest.approx(expected)


def test_terms_with_arguments_are_combined_by_a_bare_string():
    texts = ["a b c d", "b"]
    parts = Parts((texts, texts)), Parts((["", ""], ["", ""]))
    summed = resolve("keywords(words=['a']) - 0.1 * words(target=3)")
    assert summed(*parts) == pytest.approx(0.5 - 0.1 * 1.5)
    bounded = resolve("words(target=3) subject to keywords(words=['a']) <= 0.1")
    assert bounded(*parts) == pytest.approx(1.5 + 0.4)
    assert resolve(bounded.name).name == bounded.name


def test_metrics_of_ones_own_take_part_by_the_name_given(task):
    mine = zoopt.combined("accuracy - mine", mine=zoopt.metric(lambda y_true, y_pred: 0.25,
                                                               higher_is_better=False))  # fmt: skip
    assert value(task, mine) == 0.25
    assert mine.name == "accuracy - mine"


@pytest.mark.parametrize(
    "text",
    [
        "f1 - 0.1 * accuracy subject to cross_entropy <= 0.5 weight 2 and mcc >= 0",
        "f1 - 0.12345678 * mcc subject to mcc >= -0.12345678 weight 1234567.5",
        "f1 - 1e-07 * words(target=3) + 2 * format_match(pattern='(a|b) - c and d')",
    ],
)
def test_the_name_says_the_same_again(text):
    assert zoopt.combined(text).name == text
    assert zoopt.combined(zoopt.combined(text).name).name == text


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("accuracy + cross_entropy", ValueError, "write '- cross_entropy'"),
        ("accuracy - 2 * precison", KeyError, "no objective is called 'precison'"),
        ("accuracy - words(3)", ValueError, r"'words\(3\)' has no name for argument 3"),
    ],
)
def test_what_cannot_be_combined_says_how_to_write_it(text, error, message):
    with pytest.raises(error, match=message):
        zoopt.combined(text)


def test_a_metric_that_the_task_cannot_give_is_refused(task):
    with pytest.raises(ValueError, match="takes completions, but HeadClassification gives class"):
        TaskObjective(task, zoopt.combined("accuracy subject to words <= 3"))


def test_a_blend_goes_from_the_surrogate_to_what_is_meant(task):
    accuracy, smooth = zoopt.get_objective("accuracy"), zoopt.get_objective("cross_entropy")
    values = [value(task, blend(accuracy, smooth, share)) for share in (1.0, 0.25, 0.0)]
    a, s = alone(task, "accuracy"), alone(task, "cross_entropy")
    assert values == pytest.approx([-s, 0.75 * a - 0.25 * s, a])
    assert blend(accuracy, smooth, 1.0).higher_is_better


def test_a_run_that_begins_with_a_surrogate_resumes_to_the_same_weights(tmp_path):
    """Accuracy alone is silent here; with cross-entropy first it is learned."""
    rows = [{"x": float(x), "label": str(int(x > 3))} for x in range(8)]
    splits = dict.fromkeys(("train", "dev"), rows)
    collate = lambda batch: torch.tensor([[row["x"]] for row in batch])  # noqa: E731
    task = zoopt.HeadClassification(**splits, labels=["0", "1"], collate=collate)
    options = {"eps": 1e-3, "lr": 0.2, "batch_size": 8, "eval_every": 100, "quiet": True}
    ends = []
    for part, times in (("whole", 1), ("twice", 2)):
        for _ in range(times):
            model = torch.nn.Linear(1, 2)
            with torch.no_grad():  # says 0 up to x = 6
                model.weight.copy_(torch.tensor([[-0.5], [0.5]]))
                model.bias.copy_(torch.tensor([3.0, -3.0]))
            result = zoopt.tune(
                model,
                task=task,
                objective="accuracy",
                steps=120,
                surrogate_steps=100,
                surrogate="cross_entropy",
                run_dir=tmp_path / part,
                **options,
            )
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)
    assert result.best_step > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surrogate": "cross_entropy"}, "surrogate_steps=100"),
        ({"surrogate_steps": 3, "objective": "roc_auc"}, "'roc_auc' has no smooth variant"),
    ],
)
def test_a_surrogate_half_said_is_an_error(task, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        zoopt.tune(torch.nn.Linear(2, 2), task=task, run_dir=tmp_path, **settings)


def test_a_penalty_on_the_distance_from_the_base_model(task):
    penalised = zoopt.combined("accuracy - 0.5 * kl_to_base")
    base = torch.nn.Identity()
    task.anchor(base, task.train)
    assert value(task, penalised) == alone(task, "accuracy")

    class Doubled(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    p, q = (torch.tensor(k * LOGITS).log_softmax(-1) for k in (2, 1))
    divergence = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean").item()
    found = TaskObjective(task, penalised).value(Doubled(), task.train)
    assert found == pytest.approx(0.5 - 0.5 * divergence, rel=1e-9)


def test_a_run_holds_on_to_the_base_model_by_the_penalty(tmp_path):
    rows = [{"x": float(x), "label": str(int(x > 3))} for x in range(8)]
    collate = lambda batch: torch.tensor([[row["x"]] for row in batch])  # noqa: E731
    moved = []
    for weight in (0, 100):
        torch.manual_seed(3)
        model = torch.nn.Linear(1, 2)
        before = model.weight.detach().clone()
        zoopt.tune(
            model,
            task=zoopt.HeadClassification(rows, rows, labels=["0", "1"], collate=collate),
            objective=f"cross_entropy + {weight} * kl_to_base",
            run_dir=tmp_path / str(weight),
            **{"lr": 0.003, "eps": 1e-3, "steps": 50, "batch_size": 8, "quiet": True},
        )
        moved.append((model.weight - before).norm().item())
    assert moved[1] < 0.5 * moved[0]
