"""Pairs that people compared: margins, their metrics, and intervals that know of groups."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from transformers import LlamaForCausalLM

import zoopt
from zoopt.objectives.resolve import resolve
from zoopt.tasks import TaskObjective
from zoopt.tuning.report.evaluation import compare


def item(*x):
    return {"x": torch.tensor(x, dtype=torch.float64)}


def collate(items):
    return torch.stack([each["x"] for each in items])


def pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "chosen": item(*rng.normal(size=3)),
            "rejected": item(*rng.normal(size=3)),
            "share": rng.choice([0.5, 0.75, 1.0]),
            "weight": float(rng.integers(1, 5)),
        }
        for _ in range(count)
    ]


def linear(outputs=1):
    torch.manual_seed(0)
    return torch.nn.Linear(3, outputs, dtype=torch.float64)


def make(train, **splits):
    scorer = zoopt.Regression([item(0.0)], collate=collate, target="")
    return zoopt.Preference(scorer, train, **splits, batch_size=4)


def by_hand(model, examples):
    with torch.no_grad():
        return np.array(
            [float(model(p["chosen"]["x"]) - model(p["rejected"]["x"])) for p in examples]
        )


def test_margins_are_the_difference_of_the_scores_one_by_one():
    examples, model = pairs(11), linear()
    task = make(examples)
    np.testing.assert_allclose(task.predict(model, examples), by_hand(model, examples), rtol=1e-12)


def test_a_classifiers_score_is_its_last_logit_less_its_first():
    examples, model = pairs(5), linear(2)
    scorer = zoopt.HeadClassification(
        [item(0.0)], collate=collate, labels=["bad", "good"], target=""
    )
    margins = zoopt.Preference(scorer, examples).predict(model, examples)
    single = linear()
    with torch.no_grad():
        single.weight.copy_(model.weight[1:] - model.weight[:1])
    np.testing.assert_allclose(margins, by_hand(single, examples), rtol=1e-9)


def test_metrics_count_judgements():
    examples, model = pairs(40), linear()
    task = make(examples)
    margins = by_hand(model, examples)
    judgements = [  # every judgement on its own: whether the model agrees, and its log-odds
        (side * m, share * p["weight"])
        for m, p in zip(margins, examples, strict=True)
        for side, share in ((1, p["share"]), (-1, 1 - p["share"]))
    ]
    signed, weight = map(np.array, zip(*judgements, strict=True))
    wanted = {
        "win_rate": np.average(signed > 0, weights=weight),
        "bradley_terry": np.average(-np.log(expit(signed)), weights=weight),
    }
    for name, value in wanted.items():
        got = TaskObjective(task, zoopt.get_objective(name)).value(model, examples)
        assert got == pytest.approx(value, rel=1e-9)


def test_dpo_is_measured_from_the_anchored_model():
    examples, base, model = pairs(10), linear(), torch.nn.Linear(3, 1, dtype=torch.float64)
    task = make(examples)
    task.anchor(base, examples)
    dpo = TaskObjective(task, zoopt.get_objective("dpo"))
    assert dpo.value(base, examples) == pytest.approx(np.log(2))
    moved = 0.1 * (by_hand(model, examples) - by_hand(base, examples))
    share, weight = (np.array([p[key] for p in examples]) for key in ("share", "weight"))
    loss = -share * np.log(expit(moved)) - (1 - share) * np.log(expit(-moved))
    assert dpo.value(model, examples) == pytest.approx(np.average(loss, weights=weight))


def test_dpo_without_a_base_model_says_what_to_call_and_the_others_need_none():
    examples, model = pairs(4), linear()
    task = make(examples)
    for name in ("dpo", "dpo(beta=0.2)", "win_rate - 0.1 * dpo"):
        with pytest.raises(ValueError, match=r"call task\.anchor\(model, examples\) first"):
            TaskObjective(task, resolve(name)).value(model, examples)
    for name in ("win_rate", "bradley_terry"):
        assert TaskObjective(task, resolve(name)).value(model, examples) > 0


def test_a_run_on_dpo_anchors_its_base_model_by_itself(tmp_path):
    rates = {"lr": 1e-3, "eps": 1e-3, "steps": 3, "batch_size": 4, "quiet": True}
    for name, how in {
        "objective": {"objective": "dpo"},
        "surrogate": {"objective": "win_rate", "surrogate": "dpo", "surrogate_steps": 2},
    }.items():
        task = make(pairs(8), dev=pairs(4, 1), test=pairs(4, 2))
        result = zoopt.tune(linear(), task=task, **how, **rates, run_dir=tmp_path / name)
        assert result.steps == 3
        if how["objective"] == "dpo":
            assert result.report.row("dpo").before.value == pytest.approx(np.log(2))


@pytest.mark.parametrize("engine", ["overlay", "batched"])
def test_probes_of_a_population_are_those_evaluated_one_by_one(engine):
    examples, model = pairs(8), linear()
    objective = TaskObjective(make(examples), zoopt.get_objective("bradley_terry"))
    records = []
    for name in (engine, "copy"):
        opt = zoopt.ZOOptimizer(
            model, 0.0, zoopt.NSPSA(n=3, eps=0.1), direction="lowrank", engine=name
        )
        opt.recorder = records.append
        opt.step(lambda population: objective.values(model, examples, population))
    assert records[0].losses == pytest.approx(records[1].losses, rel=1e-9)


def test_tuning_on_win_rate_after_bradley_terry_finds_what_people_want(tmp_path):
    wanted = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    judged = []
    for pair in pairs(240):
        a, b = pair["chosen"], pair["rejected"]
        better = (a["x"] - b["x"]) @ wanted > 0
        judged.append({"chosen": a if better else b, "rejected": b if better else a})
    task = make(judged[:120], dev=judged[120:160], test=judged[160:])
    result = zoopt.tune(
        linear(),
        task=task,
        objective="win_rate",
        surrogate_steps=200,
        lr=0.2,
        eps=0.05,
        steps=250,
        batch_size=20,
        run_dir=tmp_path,
        quiet=True,
    )
    row = result.report.row("win_rate")
    assert row.after.value > 0.9
    assert row.gain.low > 0


def test_pairs_of_a_group_are_drawn_together():
    """Copies of a pair tell nothing new: with its copies in its group the interval stays."""
    once = [{**pair, "group": i} for i, pair in enumerate(pairs(30))]
    metric = zoopt.get_objective("win_rate")
    widths = []
    for examples in (once, once * 9):
        task = make(examples)
        margins = task.predict(linear(), examples)
        found = compare(
            metric, {"m": margins}, task.references(examples), task.clusters(examples)
        ).values["m"]
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert task.clusters(pairs(2)) is None


def test_wrong_uses_say_what_is_expected():
    with pytest.raises(KeyError, match="'chosen' and 'rejected'"):
        make([{"chosen": item(0.0), "refused": item(0.0)}])
    examples = pairs(2)
    scorer = zoopt.HeadClassification([item(0.0)], collate=collate, labels="abc", target="")
    with pytest.raises(ValueError, match="3 numbers per item"):
        zoopt.Preference(scorer, examples).predict(linear(3), examples)
    with pytest.raises(ValueError, match="takes labels, but Preference gives margins"):
        TaskObjective(make(examples), zoopt.get_objective("accuracy"))
    with pytest.raises(zoopt.NonFiniteLossError, match="example 1"):
        zoopt.get_objective("win_rate")([0.0, np.nan], make(examples).references(examples))


@pytest.mark.parametrize(
    ("judgement", "told"),
    [
        ({"share": 70}, r"dev pair 1 has share 70; expected the fraction"),
        ({"share": -1}, "from 0 to 1"),
        ({"share": float("nan")}, "has share nan"),
        ({"share": None}, "has share None"),
        ({"weight": -2.0}, "has weight -2.0; expected a positive number"),
        ({"weight": 0}, "has weight 0"),
        ({"weight": float("inf")}, "has weight inf"),
        ({"shares": 0.7}, "has the unknown key 'shares': did you mean 'share'"),
        ({"Weight": 0.7}, "did you mean 'weight'"),
        ({"group": 3}, "dev pair 0 has no 'group', but others have"),
    ],
)
def test_judgements_that_nobody_can_have_made_are_refused(judgement, told):
    train = [{"chosen": item(0.0), "rejected": item(1.0)}]
    with pytest.raises((KeyError, ValueError), match=told):
        make(train, dev=[*train, {**train[0], **judgement}])


def test_other_columns_and_a_split_without_groups_are_taken():
    pair = {"chosen": item(0.0), "rejected": item(1.0), "share": 0.0, "source": "a", "shared": 1}
    task = make(iter([pair]), test=[{**pair, "group": 0}, {**pair, "group": 1}])
    assert task.references(task.train)["share"] == [0.0]


def test_a_language_model_prefers_by_log_probability(tokenizer, config):
    """Each text of a pair is scored as a choice after its prompt is."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    items = [{"prompt": "it was", "choice": text} for text in ("a good b", "bad", "fine c")]
    scorer = zoopt.MultipleChoice(
        items, tokenizer=tokenizer, template="{prompt} {choice}", target=""
    )
    judged = [{"chosen": items[a], "rejected": items[b]} for a, b in ((0, 1), (1, 2), (2, 0))]
    scores = []
    for item in items:
        ids = tokenizer(f"{item['prompt']} {item['choice']}", return_tensors="pt")["input_ids"]
        said = model(ids).logits[0].log_softmax(-1)
        told = [said[i - 1, ids[0, i]].item() for i in range(2, ids.shape[1])]
        scores.append(sum(told) / len(told))
    expected = [scores[0] - scores[1], scores[1] - scores[2], scores[2] - scores[0]]
    margins = zoopt.Preference(scorer, judged).predict(model, judged)
    np.testing.assert_allclose(margins, expected, rtol=1e-4, atol=1e-6)
