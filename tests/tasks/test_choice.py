"""Multiple choice: scores are those of each choice alone, whatever it is batched with."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

import zoopt
from zoopt.tasks import Drawn
from zoopt.tuning.report import evaluation

ROWS = [
    {"text": "a b", "choices": ["good", "bad fine"], "label": 1},
    {"text": "c d e f a", "choices": ["fine it was", "a", "b good"], "label": "a"},
    {"text": "d", "choices": ["bad", "fine c"], "label": 0},
]


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(3)
    return LlamaForCausalLM(config).eval()


def multiple_choice(tokenizer, rows=ROWS, **changes):
    options = {"tokenizer": tokenizer, "template": "{text} it was {choice}", **changes}
    return zoopt.MultipleChoice(rows, **options)


def mean_log_probability(model, tokenizer, prompt, choice):
    """Token by token, one sequence at a time, without padding."""
    before = tokenizer(prompt)["input_ids"]
    after = tokenizer(choice, add_special_tokens=False)["input_ids"]
    total = 0.0
    for i, token in enumerate(after):
        with torch.no_grad():
            logits = model(torch.tensor([before + after[:i]])).logits[0, -1]
        total += torch.log_softmax(logits, -1)[token].item()
    return total / len(after)


def alone(model, tokenizer, rows=ROWS):
    return [
        [mean_log_probability(model, tokenizer, f"{r['text']} it was", c) for c in r["choices"]]
        for r in rows
    ]


def test_each_choice_is_rendered_into_the_template(tokenizer):
    task = multiple_choice(tokenizer)
    assert [task.inputs.render(row) for row in task.rows(ROWS[1])] == [
        "c d e f a it was fine it was",
        "c d e f a it was a",
        "c d e f a it was b good",
    ]
    assert [task.size(row) for row in task.rows(ROWS[1])] == [3, 1, 2]


def test_scores_are_mean_log_probabilities_of_each_choice_alone(tokenizer, model):
    scores = multiple_choice(tokenizer).predict(model, ROWS)
    assert scores.shape == (3, 3)
    assert (scores == -np.inf).tolist() == [[False, False, True], [False] * 3, [False, False, True]]
    for row, expected in zip(scores, alone(model, tokenizer), strict=True):
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=1e-5)


def test_the_order_of_examples_and_the_size_of_forwards_change_nothing(tokenizer, model):
    whole = multiple_choice(tokenizer).predict(model, ROWS)
    for size in (1, 2, 3):
        pieces = multiple_choice(tokenizer, batch_size=size).predict(model, ROWS[::-1])
        np.testing.assert_allclose(pieces[::-1], whole, rtol=1e-5)


def test_only_the_logits_that_predict_choices_are_computed(tokenizer, model):
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    multiple_choice(tokenizer).predict(model, ROWS)
    hook.remove()
    assert shapes == [(7, 4, len(tokenizer))]


def test_a_model_that_gives_all_logits_gets_the_same_scores(tokenizer, model):
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input_ids, attention_mask, position_ids):
            return self.inner(input_ids, attention_mask, position_ids)

    task = multiple_choice(tokenizer)
    np.testing.assert_allclose(task.predict(Whole(), ROWS), task.predict(model, ROWS), rtol=1e-5)


def test_progress_counts_examples(tokenizer, model):
    told = []
    multiple_choice(tokenizer, batch_size=2).predict(model, ROWS, told.append)
    assert sum(told) == len(ROWS)
    assert len(told) == 4


def test_of_several_wordings_the_likeliest_counts(tokenizer, model):
    rows = [{"text": "a", "choices": [["good", "b b"], "bad"], "label": "b b"}]
    task = multiple_choice(tokenizer, rows)
    assert task.references(rows).tolist() == [0]
    first, second, other = (
        mean_log_probability(model, tokenizer, "a it was", c) for c in ("good", "b b", "bad")
    )
    expected = [[max(first, second), other]]
    np.testing.assert_allclose(task.predict(model, rows), expected, rtol=1e-5)
    assert task.label(rows[0], 0) == "good"


def test_references_are_numbers_or_texts_of_choices(tokenizer):
    assert multiple_choice(tokenizer).references(ROWS).tolist() == [1, 1, 0]


def test_choices_with_a_column_each_have_labels(tokenizer, model):
    rows = [
        {"text": r["text"], "x": r["choices"][0], "y": r["choices"][1], "label": 1} for r in ROWS
    ]
    task = multiple_choice(tokenizer, rows, choices={"0": "{x}", "1": "{y}"})
    assert task.labels == ("0", "1")
    assert task.references(rows).tolist() == [1, 1, 1]
    expected = [scores[:2] for scores in alone(model, tokenizer)]
    np.testing.assert_allclose(task.predict(model, rows), expected, rtol=1e-5)


def test_long_rows_lose_the_beginning_of_the_prompt(tokenizer, model):
    row = {"text": "a b c d e f", "choices": ["good bad"], "label": 0}
    found = multiple_choice(tokenizer, [row], max_length=5).predict(model, [row])
    expected = mean_log_probability(model, tokenizer, "f it was", "good bad")
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


def test_the_token_that_every_text_begins_with_is_kept(word_level, model):
    words = ["<pad>", "<s>", "a", "b", "c", "d", "e", "f", "good", "it", "was", "<unk>"]
    tokenizer = word_level(words, "<s> $A")

    def kept(task):
        return " ".join(tokenizer.convert_ids_to_tokens(task.inputs.ids(row)))

    task = multiple_choice(tokenizer, max_length=5)
    row = task.rows(ROWS[1])[2]
    assert kept(task) == "<s> it was b good"
    with pytest.raises(ValueError, match="raise max_length"):
        multiple_choice(tokenizer, max_length=2).size(row)
    task = multiple_choice(tokenizer, max_length=3)
    assert kept(task) == "<s> b good"
    expected = mean_log_probability(model, tokenizer, "", "b good")
    assert task.forward(model, [row]).item() == pytest.approx(expected, rel=1e-5)


def test_choices_are_told_from_the_prompt_by_their_tokens(model):
    """Where a tokenizer merges across the border, the merged token belongs to the choice."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "a": 1, "b": 2, "c": 3, "bc": 4}
    merging = Tokenizer(models.BPE(vocabulary, [("b", "c")]))
    merging.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merging, pad_token="<pad>")
    rows = [{"text": "ab", "choices": ["c", "a"], "label": 0}]
    task = multiple_choice(tokenizer, rows, template="{text}{choice}")
    assert [task.inputs.ids(row) for row in task.rows(rows[0])] == [[1, 4], [1, 2, 1]]
    assert [task.size(row) for row in task.rows(rows[0])] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "{text} it was"}, "needs exactly one {choice}"),
        ({"template": "{choice} {choice}"}, "needs exactly one {choice}"),
        ({"choices": {"0": "{x}"}}, "two labels or more"),
        ({"target": "missing"}, "no column 'missing'"),
    ],
)
def test_mistakes_are_told_when_the_task_is_made(tokenizer, changes, message):
    with pytest.raises((ValueError, KeyError), match=message):
        multiple_choice(tokenizer, **changes)


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        ({"choices": "good"}, {}, "expected a list of choices"),
        ({"choices": []}, {}, "expected a list of choices"),
        ({"choices": ["good", " "]}, {}, "no tokens"),
        ({"choices": ["good"]}, {"template": "{choice}"}, "no token comes before"),
        ({"choices": ["good bad fine"]}, {"max_length": 3}, "raise max_length"),
        ({"choices": ["good"]}, {"choices": "options"}, "no column 'options'"),
        ({"choices": ["good"]}, {"choices": {"0": "{x}", "1": "{y}"}}, "needs column 'x'"),
    ],
)
def test_mistakes_in_examples_are_told(tokenizer, model, row, changes, message):
    row = {"text": "a", "label": 0, **row}
    with pytest.raises((ValueError, KeyError), match=message):
        multiple_choice(tokenizer, [row], **changes).predict(model, [row])


@pytest.mark.parametrize("right", [2, -1, "ugly", 0.5])
def test_a_label_that_is_no_choice_is_named(tokenizer, right):
    row = {"text": "a", "choices": ["good", "bad"], "label": right}
    with pytest.raises(ValueError, match="neither one of the choices"):
        multiple_choice(tokenizer, [row]).references([row])


@pytest.mark.parametrize(
    ("choices", "right", "index"),
    [
        ([10, 20, 30], 20, 1),
        ([10, 20, 30], 2, 2),
        ([10, 20, 30], "20", 1),
        ([0, 1, 2], 1, 1),
        ([1, 2, 3], "2", 1),
        ([1, 2, 3], 3, 2),
        (["1", "2", "3"], 2, 2),
        (["1", "2", "3"], "2", 1),
        ([[5, 6], [7]], 6, 0),
    ],
)
def test_a_number_is_an_index_unless_the_choices_are_numbers(tokenizer, choices, right, index):
    row = {"text": "a", "choices": choices, "label": right}
    assert multiple_choice(tokenizer, [row]).references([row]).tolist() == [index]


def test_a_number_that_may_be_a_choice_or_an_index_is_refused(tokenizer):
    row = {"text": "a", "choices": [1, 2, 3], "label": 2}
    said = r"2 in column 'label' is choice 1 of \[1, 2, 3\], but could also be the index of 3: give"
    with pytest.raises(ValueError, match=said):
        multiple_choice(tokenizer, [row]).references([row])


def test_metrics_take_ragged_choices(tokenizer, model):
    task = multiple_choice(tokenizer)
    scores = alone(model, tokenizer)
    right = [1, 1, 0]
    chances = [np.exp(s) / np.exp(s).sum() for s in map(np.array, scores)]
    expected = {
        "accuracy": np.mean([np.argmax(s) == r for s, r in zip(scores, right, strict=True)]),
        "cross_entropy": -np.mean([np.log(p[r]) for p, r in zip(chances, right, strict=True)]),
    }
    for name, value in expected.items():
        objective = zoopt.TaskObjective(task, zoopt.get_objective(name))
        assert objective.value(model, ROWS) == pytest.approx(value, rel=1e-5), name


def test_a_batch_without_the_longest_list_of_choices_is_compared_with_the_base_model(
    tokenizer, model
):
    task = multiple_choice(tokenizer)
    task.anchor(model, task.train)
    kl = zoopt.TaskObjective(task, zoopt.get_objective("kl_to_base"))
    assert kl.value(model, Drawn(task.train, [2, 0])) == pytest.approx(0, abs=1e-6)
    assert kl.value(model, task.train) == pytest.approx(0, abs=1e-6)


def test_the_loss_of_teacher_forcing_is_a_metric_of_scores(tokenizer, model):
    def choice_loss(predictions, references):
        return -predictions[np.arange(len(references)), references].mean()

    metric = zoopt.Metric("choice_loss", choice_loss, False, needs="scores")
    found = zoopt.TaskObjective(multiple_choice(tokenizer), metric).value(model, ROWS)
    scores = alone(model, tokenizer)
    assert found == pytest.approx(-(scores[0][1] + scores[1][1] + scores[2][0]) / 3, rel=1e-5)


def test_ragged_choices_are_tuned_and_reported(tokenizer, config, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "_RESAMPLES", 20)
    torch.manual_seed(3)
    result = zoopt.tune(
        LlamaForCausalLM(config),
        task=multiple_choice(tokenizer, dev=ROWS, test=ROWS),
        objective="cross_entropy",
        estimator="nspsa",
        n=4,
        direction="lowrank",
        engine="batched",
        lr=0.04,
        eps=1e-2,
        steps=15,
        batch_size=3,
        eval_every=15,
        run_dir=tmp_path,
        quiet=True,
    )
    row = result.report.row("cross_entropy")
    assert row.after.value < 0.7 * row.before.value
    for change in result.report.changes:
        choices = change["example"]["choices"]
        assert {change["before"], change["after"], change["reference"]} <= {*choices}
    assert result.report.changes
