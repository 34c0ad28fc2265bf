"""Tasks: padding and positions change nothing, labels are the right tokens, mistakes are told."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

import zoopt
from zoopt.tasks import TaskObjective, as_needed
from zoopt.tasks.head import name_outputs
from zoopt.tuning.report import evaluation

ROWS = [
    {"text": "a b c", "label": "good"},
    {"text": "d", "label": "bad"},
    {"text": "e f a b c d", "label": "good"},
    {"text": "b b", "label": "bad"},
]


def verbalizer(tokenizer, **changes):
    options = {
        "tokenizer": tokenizer,
        "template": "{text} it was",
        "verbalizer": {"bad": "bad", "good": "good"},
        **changes,
    }
    return zoopt.Verbalizer(ROWS, **options)


def test_verbalizer_logits_are_the_last_positions_of_each_example_alone(tokenizer, config):
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    task = verbalizer(tokenizer)
    together = task.predict(model, ROWS)
    for row, scores in zip(ROWS, together, strict=True):
        ids = torch.tensor([tokenizer(row["text"] + " it was")["input_ids"]])
        with torch.no_grad():
            alone = model(ids).logits[0, -1, tokenizer.convert_tokens_to_ids(["bad", "good"])]
        np.testing.assert_allclose(scores, alone.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_virtual_tokens_do_not_shift_the_last_position(tokenizer, config):
    peft = pytest.importorskip("peft")
    soft = peft.PromptTuningConfig(num_virtual_tokens=3, task_type=peft.TaskType.CAUSAL_LM)
    model = peft.get_peft_model(LlamaForCausalLM(config), soft).eval()
    (scores,) = verbalizer(tokenizer).predict(model, ROWS[:1])
    ids = torch.tensor([tokenizer("a b c it was")["input_ids"]])
    with torch.no_grad():
        logits = model(ids).logits[0, -1, tokenizer.convert_tokens_to_ids(["bad", "good"])]
    np.testing.assert_allclose(scores, logits.numpy(), rtol=1e-4, atol=1e-6)


def test_only_the_label_positions_logits_are_computed(tokenizer, config):
    model = LlamaForCausalLM(config).eval()
    shapes = []
    model.lm_head.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    verbalizer(tokenizer).predict(model, ROWS)
    assert shapes == [(4, 1, len(tokenizer))]


def test_micro_batches_and_order_do_not_change_predictions(tokenizer, config):
    model = LlamaForCausalLM(config).eval()
    whole = verbalizer(tokenizer).predict(model, ROWS)
    pieces = verbalizer(tokenizer, batch_size=1).predict(model, ROWS)
    np.testing.assert_allclose(whole, pieces, rtol=1e-4, atol=1e-6)


def test_long_inputs_keep_the_end_of_the_template(tokenizer):
    task = verbalizer(tokenizer, max_length=4)
    assert task.inputs.ids(ROWS[2]) == tokenizer.convert_tokens_to_ids(["c", "d", "it", "was"])


def test_references_are_class_indices_in_the_verbalizers_order(tokenizer):
    assert verbalizer(tokenizer).references(ROWS).tolist() == [1, 0, 1, 0]


def test_words_are_the_tokens_that_come_after_the_template():
    """A tokenizer that marks beginnings of words gives one after a line break another token."""
    words = ["<pad>", "▁a", "▁No", "▁Yes", "No", "Yes", "\n", "▁"]
    pieces = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    spm = PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>")

    def tokens(template, *spoken):
        named = dict(zip(["bad", "good"], spoken, strict=True))
        task = verbalizer(spm, template=template, verbalizer=named)
        return spm.convert_ids_to_tokens(task.word_ids)

    assert tokens("{text} a\n", "No", "Yes") == ["No", "Yes"]
    assert tokens("{text} a", " No", " Yes") == ["▁No", "▁Yes"]
    assert tokens("{text}", "No", "Yes") == ["▁No", "▁Yes"], "of the words alone"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verbalizer": {"bad": "bad", "good": "so good"}}, "tokens"),
        ({"verbalizer": {"bad": "bad", "good": "bad"}}, "share a word"),
        ({"template": "no column"}, "has no column"),
        ({"target": "missing"}, "no column 'missing'"),
    ],
)
def test_mistakes_are_told_when_the_task_is_made(tokenizer, changes, message):
    with pytest.raises((ValueError, KeyError), match=message):
        verbalizer(tokenizer, **changes)


def test_a_conversation_is_not_put_into_a_template(tokenizer):
    rows = [{"prompt": [{"role": "user", "content": "it was"}]}]
    task = zoopt.Generation(rows, tokenizer=tokenizer, max_new_tokens=2)
    with pytest.raises(TypeError, match=r"'prompt' holds messages.*apply_chat_template\(messages"):
        task.length(rows[0])


def test_a_tokenizer_that_cannot_pad_is_refused(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="has neither pad_token nor eos_token"):
        zoopt.Generation([{"prompt": "a"}], tokenizer=tokenizer, max_new_tokens=2)


def test_rows_of_a_data_set_stay_the_same_objects(tokenizer):
    import datasets

    rows = [{"prompt": "it was"}, {"prompt": "a b"}]
    task = zoopt.Generation(datasets.Dataset.from_list(rows), tokenizer=tokenizer, max_new_tokens=2)
    assert task.train[:1] == rows[:1]
    assert task.train[0] is task.train[0]


def test_the_rows_of_a_data_frame_are_examples(tokenizer):
    frame = pd.DataFrame({"prompt": ["it was", "a b"], "n": [1, 2]})
    task = zoopt.Generation(frame, dev=frame[:0], tokenizer=tokenizer, max_new_tokens=2)
    assert task.train == [{"prompt": "it was", "n": 1}, {"prompt": "a b", "n": 2}]
    assert not task.dev


def test_a_missing_cell_of_a_table_is_a_missing_key(tokenizer):
    frame = pd.DataFrame({"prompt": ["it was", "a b"], "share": [0.5, None]})
    task = zoopt.Generation(frame, tokenizer=tokenizer, max_new_tokens=2)
    assert task.train == [{"prompt": "it was", "share": 0.5}, {"prompt": "a b"}]


@pytest.mark.parametrize("value", [None, math.nan, np.float32("nan")])
def test_a_missing_text_is_not_the_word_for_it(tokenizer, value):
    row = {"text": value, "label": "good", "id": 17}
    with pytest.raises(KeyError, match=r"needs column 'text', but it is .*'id': 17"):
        verbalizer(tokenizer).length(row)
    similarity = zoopt.Similarity([{"a": "a", "label": 1}], tokenizer=tokenizer, columns=("a", "b"))
    with pytest.raises(KeyError, match="no text in column 'b' to compare"):
        similarity.rows({"a": "a", "b": value})
    choices = zoopt.MultipleChoice(ROWS, tokenizer=tokenizer, template="{text} {choice}")
    with pytest.raises(ValueError, match="a choice in column 'choices' is missing"):
        choices.choices({"text": "a", "choices": ["a", value]})


def test_unknown_labels_and_columns_are_named(tokenizer):
    task = verbalizer(tokenizer)
    with pytest.raises(ValueError, match=r"'ugly'.*not among the labels"):
        task.references([{"text": "a", "label": "ugly"}])
    with pytest.raises(KeyError, match="needs column"):
        task.inputs.ids({"body": "a"})


def test_head_classification_by_a_sequence_classifier_ignores_padding(tokenizer, config):
    config.num_labels = 2
    model = LlamaForSequenceClassification(config).eval()
    task = zoopt.HeadClassification(ROWS, tokenizer=tokenizer, labels=["bad", "good"])
    whole = task.predict(model, ROWS)
    for row, scores in zip(ROWS, whole, strict=True):
        np.testing.assert_allclose(scores, task.predict(model, [row])[0], rtol=1e-4, atol=1e-6)


def test_heads_of_plain_modules_and_wrong_output_counts():
    rows = [{"x": [1.0, 2.0], "label": "a"}, {"x": [3.0, 4.0], "label": "b"}]
    collate = lambda batch: torch.tensor([row["x"] for row in batch])  # noqa: E731
    task = zoopt.HeadClassification(rows, collate=collate, labels=["a", "b"])
    assert task.predict(torch.nn.Linear(2, 2), rows).shape == (2, 2)
    with pytest.raises(ValueError, match="3 logits for 2 labels"):
        task.predict(torch.nn.Linear(2, 3), rows)
    values = zoopt.Regression([{"x": [1.0, 2.0], "y": 3.0}], collate=collate, target="y")
    assert values.predict(torch.nn.Linear(2, 1), rows).shape == (2,)
    assert values.references(values.train).tolist() == [3.0]
    with pytest.raises(ValueError, match="one output"):
        values.predict(torch.nn.Linear(2, 2), rows)


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (["negative", "positive"], True),
        (["POSITIVE", "NEGATIVE"], False),
        (["LABEL_0", "LABEL_1"], False),
    ],
)
def test_the_outputs_of_a_model_are_named_as_the_labels(names, warned, caplog):
    labels = ["positive", "negative"]
    model = torch.nn.Linear(1, 2)
    model.config = LlamaConfig(id2label=dict(enumerate(names)))
    name_outputs(model, labels)
    assert model.config.id2label == {0: "positive", 1: "negative"}
    assert model.config.label2id == {"positive": 0, "negative": 1}
    assert ("named negative, positive, but labels are positive, negative" in caplog.text) == warned
    name_outputs(torch.nn.Linear(1, 2), labels)  # has no configuration
    with pytest.raises(ValueError, match="two labels are the same"):
        zoopt.HeadClassification([{"label": 1}], labels=[1, "1"], collate=list)


def test_predictions_take_the_form_that_a_metric_needs():
    scores = np.array([[0.0, 1.0], [2.0, 0.0]])
    assert as_needed(scores, "labels").tolist() == [1, 0]
    np.testing.assert_allclose(as_needed(scores, "probabilities").sum(axis=1), 1.0)
    np.testing.assert_allclose(
        as_needed(scores, "probabilities")[0, 1], 1 / (1 + np.exp(-1.0)), rtol=1e-12
    )


@pytest.mark.parametrize("needs", ["labels", "probabilities", "scores", ("labels", "scores")])
def test_a_score_that_is_not_a_number_is_no_class(needs):
    scores = np.array([[0.0, 1.0], [math.nan, math.nan]])
    with pytest.raises(zoopt.NonFiniteLossError, match="cannot score example 1: its prediction"):
        as_needed(scores, needs)


def test_an_objective_that_does_not_fit_the_task_is_refused(tokenizer):
    with pytest.raises(ValueError, match="takes values"):
        TaskObjective(verbalizer(tokenizer), zoopt.get_objective("spearman"))


def test_micro_batched_predictions_are_scored_once(tokenizer, config):
    model = LlamaForCausalLM(config).eval()
    calls = []
    metric = zoopt.Metric("counting", lambda p, r: calls.append(len(p)) or 0.0, True)
    TaskObjective(verbalizer(tokenizer, batch_size=1), metric).value(model, ROWS)
    assert calls == [4]


def test_a_convolutional_net_learns_digits_from_images(tmp_path, monkeypatch):
    """Image classification is a head's: any module, its inputs made by collate."""
    monkeypatch.setattr(evaluation, "_RESAMPLES", 20)
    images, digits = load_digits(return_X_y=True)
    rows = [
        {"image": image.reshape(1, 8, 8) / 16, "label": str(digit)}
        for image, digit in zip(images, digits, strict=True)
        if digit < 2
    ]
    task = zoopt.HeadClassification(
        rows[:200],
        test=rows[200:],
        labels=["0", "1"],
        collate=lambda batch: torch.tensor(np.stack([row["image"] for row in batch])).float(),
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )
    result = zoopt.tune(
        model,
        task=task,
        objective="cross_entropy",
        estimator="nspsa",
        n=4,
        lr=0.05,
        eps=1e-3,
        steps=40,
        batch_size=50,
        eval_every=40,
        run_dir=tmp_path,
        quiet=True,
    )
    accuracy = result.report.row("accuracy")
    assert accuracy.before.value < 0.7
    assert accuracy.after.value > 0.9
    with torch.no_grad():
        logits = model(task.collate(task.test))
    np.testing.assert_allclose(task.predict(model, task.test), logits.numpy(), rtol=1e-5)


def test_what_is_below_a_decoders_head_runs_once_for_all_probes(tokenizer, config, monkeypatch):
    """Keys and values that a decoder kept would be written by every probe, and end the sharing."""
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(
        LlamaConfig(**{**config.to_dict(), "id2label": {0: "value"}, "pad_token_id": 0})
    )
    rows = [{"text": "a good b", "label": 1.0}, {"text": "bad", "label": 0.0}]
    objective = TaskObjective(
        zoopt.Regression(rows, tokenizer=tokenizer), zoopt.get_objective("mse")
    )
    calls = []
    below = model.model.layers[0].mlp.act_fn
    monkeypatch.setattr(type(below), "forward", counted(type(below).forward, calls))
    opt = zoopt.ZOOptimizer(model, estimator=zoopt.NSPSA(n=4), params="score.weight")
    opt.step(lambda: objective.value(model, rows))
    assert len(calls) == config.num_hidden_layers


def counted(forward, calls):
    def wrapped(*args, **kwargs):
        calls.append(1)
        return forward(*args, **kwargs)

    return wrapped
