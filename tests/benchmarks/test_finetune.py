"""What is prepended is as if it were there, budgets are kept, only what was chosen is tested."""

import copy
import itertools
import json
import math

import pytest
import torch

pytest.importorskip("cma")
pytest.importorskip("peft")

from benchmarks.finetune import report, run
from benchmarks.finetune.prepended import Demonstrated, SoftPrompt
from benchmarks.finetune.questions import BANDS, QUESTIONS, TOY, Scale
from benchmarks.finetune.tuned import TUNED, Run
from benchmarks.finetune.untuned import demonstrations
from zoopt.bench.results import TUNING_SEED

QUESTION = QUESTIONS["reviews"]
CHEAP = ["zero-shot", "calibrated", "icl-4", "linear-probe", "adamw-lora", "pycma-prompt"]


@pytest.fixture(scope="module")
def task():
    _, tokenizer = TOY.load()
    return QUESTION.task(tokenizer, TOY.splits["train"], TOY.splits["dev"])


@pytest.fixture
def ids(task):
    return demonstrations(task, task.inputs.tokenizer, task.train[:2])


@pytest.mark.parametrize("kind", [Demonstrated, SoftPrompt])
def test_what_is_prepended_is_read_as_if_it_stood_before_each_text(task, ids, kind):
    model, _ = TOY.load()
    said = task.predict(kind(copy.deepcopy(model), ids), task.dev)  # in padded batches
    for row, scores in zip(task.dev, torch.from_numpy(said), strict=True):
        whole = torch.tensor([[*ids, *task.inputs.ids(row)]])
        with torch.no_grad():
            logits = model(whole).logits[0, -1, task.word_ids]
        torch.testing.assert_close(scores.float(), logits, rtol=1e-4, atol=1e-5)


def test_demonstrations_are_filled_templates_with_their_words(task, ids):
    first, second = task.train[:2]
    expected = [
        f"{task.inputs.render(row)} {QUESTION.words[row['label']].strip()}"
        for row in (first, second)
    ]
    tokenizer = task.inputs.tokenizer
    assert ids == [token for text in expected for token in tokenizer(text)["input_ids"]]


def test_bands_share_the_training_sentences_alike_in_the_order_of_their_ratings():
    train = Scale(TOY.load, TOY.read, budget=0, seeds=0).splits["train"]
    by_band = [[row["rating"] for row in train if row["band"] == band] for band in BANDS]
    assert {len(ratings) for ratings in by_band} == {len(train) // 5, len(train) // 5 + 1}
    for lower, upper in itertools.pairwise(by_band):
        assert max(lower) <= min(upper)


@pytest.mark.parametrize("name", ["adamw-lora", "mezo-norms", "mezo-lora-accuracy", "pycma-prompt"])
def test_a_budget_is_what_the_model_was_asked(name):
    row = TUNED[name]
    part, tokenizer = row.part(TOY, QUESTION)
    task = QUESTION.task(tokenizer, TOY.splits["train"] * 2)
    forwards, backwards = [], []
    part.model.register_forward_hook(lambda *_: forwards.append(1))
    asked = task.forward

    def counted(model, examples):
        logits = asked(model, examples)
        forwards.append(len(examples) - 1)
        if logits.requires_grad:
            logits.register_hook(lambda _: backwards.append(len(examples)))
        return logits

    task.forward = counted
    run_ = Run(row, part, task, row.rates[0], 25, seed=0)
    run_.to(25)
    assert 0 < run_.forwards <= 25
    assert run_.forwards * 16 == sum(forwards) + 2 * sum(backwards)
    assert run_.forwards + row.cost > 25
    assert bool(backwards) == row.gradient


def test_a_study_tests_only_what_was_chosen_and_goes_on_from_its_file(tmp_path):
    file = tmp_path / "trials.jsonl"
    run.run(TOY, CHEAP, ["reviews"], file, workers=1)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    tried = [row for row in rows if row["seed"] == TUNING_SEED]
    for name in ("adamw-lora", "pycma-prompt"):
        assert sum(row["contestant"] == name for row in tried) >= len(TUNED[name].rates)
    assert all(row["test"] is None for row in tried)
    counted = {row["contestant"]: row for row in rows if row["seed"] != TUNING_SEED}
    assert list(counted) == CHEAP
    for row in counted.values():
        assert row["score"] == row["test"]["accuracy"]
        assert row["forwards"] <= TOY.budget
        assert row["peak_mb"] > 0
    best = max(
        (row for row in tried if row["contestant"] == "adamw-lora"),
        key=lambda row: (row["score"], -row["dev"]["cross_entropy"]),
    )
    assert counted["adamw-lora"]["setting"] == best["setting"]

    before = file.read_text()
    file.write_text(before + before[:40])  # interrupted in a line
    run.run(TOY, CHEAP, ["reviews"], file, workers=1)
    assert file.read_text() == before

    text = report.write(file)
    assert all(report.ROWS[name].title in text for name in CHEAP)
    assert (tmp_path / "finetune.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (1e-3, (3e-4, 1e-3, 3e-3)),
        (3e-3, (3e-4, 1e-3, 3e-3, 9e-3)),
        (9e-3, (3e-4, 1e-3, 3e-3, 9e-3, 2.7e-2)),
        (2.7e-2, (3e-4, 1e-3, 3e-3, 9e-3, 2.7e-2)),
        (3e-4, (9e-5, 3e-4, 1e-3, 3e-3)),
    ],
)
def test_rates_go_on_past_the_end_where_the_best_stands(best, expected):
    found = {}
    for _ in range(1 + run.WIDENED):
        for _, question, rate, seed in run.search(TOY, "reviews", ["adamw-lora"], found):
            key = (question, "adamw-lora", run.setting_of(rate), seed, TOY.budget)
            score = -abs(math.log(rate / best))
            found[key] = {"score": score, "dev": None, "higher_is_better": True}
    assert run.rates(TOY, "reviews", "adamw-lora", found) == expected
    assert run.best_rate(TOY, "reviews", "adamw-lora", found) == best


def test_every_row_has_a_line_and_names_are_told_apart():
    assert set(run.named(["mezo*", "icl-4"])) == {name for name in TUNED if "mezo" in name} | {
        "icl-4"
    }
    with pytest.raises(ValueError, match="no row is called 'mezzo'"):
        run.named(["mezzo"])
    assert {report.style(name)[0] for name in TUNED} == set(report.PARTS)
    assert {report.style(name)[1] for name in TUNED} == set(report.LABELS.values())
