"""Generation: texts are those of each prompt alone, and rewards see prompts and columns."""

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, T5Config, T5ForConditionalGeneration

import zoopt
from zoopt.probes.population import Population

ROWS = [{"text": "a b", "topic": 1}, {"text": "c", "topic": 2}, {"text": "d e f a", "topic": 3}]


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(3)
    return LlamaForCausalLM(config).eval()


def generation(tokenizer, **changes):
    options = {"tokenizer": tokenizer, "template": "{text} it", "max_new_tokens": 6, **changes}
    return zoopt.Generation(ROWS, test=ROWS, **options)


def early(predictions, references):
    """Mean share of words from the first half of the vocabulary."""
    return float(np.mean([word < "d" for text in predictions for word in text.split()] or 0.0))


def test_texts_are_those_of_each_prompt_alone(tokenizer, model):
    task = generation(tokenizer)
    together = task.predict(model, ROWS)
    assert together.shape == (3,)
    for row, text in zip(ROWS, together, strict=True):
        ids = tokenizer(f"{row['text']} it", return_tensors="pt")["input_ids"]
        out = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
        assert text == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_completions_end_before_the_stop_text(tokenizer, model):
    whole = generation(tokenizer).predict(model, ROWS)
    stop = whole[0].split()[2]
    cut = generation(tokenizer, stop=stop).predict(model, ROWS)
    assert [text.partition(stop)[0] for text in whole] == cut.tolist()
    assert len(cut[0]) < len(whole[0])


def test_a_population_has_a_text_for_each_probe_and_example(tokenizer, model):
    said = generation(tokenizer).predict_each(model, ROWS, Population(2))
    assert said.shape == (2, 3)
    assert (
        said[0].tolist() == said[1].tolist() == generation(tokenizer).predict(model, ROWS).tolist()
    )


def test_references_are_texts_lists_of_them_or_nothing(tokenizer):
    assert generation(tokenizer).references(ROWS).tolist() == ["", "", ""]
    rows = [{"text": "a", "answer": ["b", "c"]}, {"text": "d", "answer": "e"}]
    options = {"template": "{text}", "target": "answer", "max_new_tokens": 6}
    task = zoopt.Generation(rows, tokenizer=tokenizer, **options)
    assert task.references(rows).tolist() == [["b", "c"], "e"]


def test_rewards_see_the_prompt_and_all_columns(tokenizer, model):
    seen = []

    def reward(predictions, references):
        seen.extend(zip(predictions, references, strict=True))
        return 0.5

    metric = zoopt.Metric("seen", reward, True, needs="completions")
    objective = zoopt.TaskObjective(generation(tokenizer), metric)
    assert objective.value(model, ROWS) == 0.5
    assert [example for _, example in seen] == [{**r, "prompt": f"{r['text']} it"} for r in ROWS]


def test_a_metric_of_labels_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"'accuracy' takes labels, but Generation gives texts"):
        zoopt.TaskObjective(generation(tokenizer), zoopt.get_objective("accuracy"))


def test_no_new_tokens_are_refused(tokenizer):
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        generation(tokenizer, max_new_tokens=0)


def test_the_prompt_leaves_room_for_what_is_to_come(tokenizer):
    """A model with learned positions ends in an IndexError after its last."""
    rows = [{"text": "good " * 100}]
    task = zoopt.Generation(rows, tokenizer=tokenizer, template="{text}", max_new_tokens=24)
    assert task.length(rows[0]) == tokenizer.model_max_length - 24
    with pytest.raises(ValueError, match="max_new_tokens=64 leaves none of the tokenizer's 64"):
        zoopt.Generation(rows, tokenizer=tokenizer, template="{text}", max_new_tokens=64)
    task = zoopt.Generation(
        rows, tokenizer=tokenizer, template="{text}", max_new_tokens=64, max_length=8
    )
    assert task.length(rows[0]) == 8


@pytest.mark.parametrize("engine", ["inplace", "batched"])
def test_sampled_texts_are_tuned_and_a_run_repeats_itself(tokenizer, config, tmp_path, engine):
    """Rewards move by sampling with common random numbers; equal settings give equal weights."""
    metric = zoopt.Metric("early", early, False, needs="texts", bounds=(0, 1))
    ended = []
    for name in "ab":
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
        result = zoopt.tune(
            model,
            task=generation(tokenizer, decoding={"do_sample": True}),
            objective=metric,
            estimator="nspsa",
            n=2,
            direction="lowrank",
            engine=engine,
            eps=0.1,
            lr=0.05,
            steps=3,
            batch_size=3,
            eval_every=3,
            run_dir=tmp_path / name,
            quiet=True,
        )
        ended.append(model.state_dict())
        assert [row.metric for row in result.report.rows] == ["early"]
        assert (tmp_path / name / "report.html").read_text().count("<h2>") >= 2
    assert all(torch.equal(ended[0][key], ended[1][key]) for key in ended[0])
    torch.manual_seed(3)
    assert any(
        not torch.equal(tensor, ended[0][key])
        for key, tensor in LlamaForCausalLM(config).state_dict().items()
    )


@pytest.mark.parametrize(
    ("dtype", "asked", "engine"),
    [
        (torch.bfloat16, "auto", "copy"),
        (torch.bfloat16, "overlay", "overlay"),
        (torch.float32, "auto", "inplace"),
    ],
)
def test_in_half_precision_a_run_that_generates_copies(
    tokenizer, config, tmp_path, dtype, asked, engine
):
    """And comes back from its log bit for bit, norms in fp32 among the tuned."""
    metric = zoopt.Metric("early", early, True, needs="texts")
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(LlamaForCausalLM(config).to(dtype))
    zoopt.tune(
        models[0],
        task=generation(tokenizer),
        objective=metric,
        engine=asked,
        eps=0.05,
        lr=1e-2,
        steps=3,
        batch_size=3,
        run_dir=tmp_path,
        quiet=True,
    )
    log = zoopt.trajectory.read(tmp_path / "trajectory.jsonl")
    assert log.header["engine"] == engine
    assert zoopt.replay(models[1], tmp_path) == 3
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


@pytest.fixture(scope="module")
def encoder_decoder(tokenizer):
    torch.manual_seed(1)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    special = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    config = T5Config(vocab_size=len(tokenizer), **sizes, **special)
    return T5ForConditionalGeneration(config).eval()


def test_an_encoder_decoders_text_is_whole_whatever_the_prompts_length(tokenizer, encoder_decoder):
    words = {"suppress_tokens": [0, 1]}  # no special ones
    task = generation(tokenizer, decoding=words)
    together = task.predict(encoder_decoder, ROWS)
    for row, text in zip(ROWS, together, strict=True):
        ids = tokenizer(f"{row['text']} it", return_tensors="pt")["input_ids"]
        out = encoder_decoder.generate(ids, max_new_tokens=6, do_sample=False, **words)
        assert text == tokenizer.decode(out[0], skip_special_tokens=True)
        assert len(text.split()) == 6
    twice = task.predict_each(encoder_decoder, ROWS, Population(2))
    assert twice.tolist() == [together.tolist()] * 2


@pytest.mark.parametrize("engine", ["overlay", "inplace"])
def test_an_encoder_decoder_is_tuned(tokenizer, encoder_decoder, tmp_path, engine):
    words = zoopt.metric(early, "zoopt", needs="texts", higher_is_better=True)
    made = {"objective": words, "engine": engine, "lr": 1e-2, "eps": 0.1, "steps": 2}
    task = generation(tokenizer)
    result = zoopt.tune(encoder_decoder, task=task, run_dir=tmp_path, quiet=True, **made)
    assert result.steps == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda **given: zoopt.Verbalizer(
            ROWS, template="{text} it", verbalizer={"1": "good", "2": "bad"}, **given
        ),
        lambda **given: zoopt.MultipleChoice(
            ROWS, template="{text} {choice}", choices={"1": "good", "2": "bad"}, **given
        ),
    ],
)
def test_tasks_that_continue_a_text_refuse_an_encoder_decoder(tokenizer, encoder_decoder, make):
    task = make(tokenizer=tokenizer, target="topic")
    with pytest.raises(TypeError, match=r"T5.* is an encoder-decoder: use zoopt.Generation"):
        task.predict(encoder_decoder, ROWS)


def test_a_judge_of_completions_sees_the_examples_in_training_too(tokenizer, model, tmp_path):
    seen = []

    def judge(a, b, examples):
        seen.append(examples)
        return 0

    task = generation(tokenizer)
    objective = zoopt.comparison(judge, needs="completions")
    made = {"objective": objective, "lr": 1.0, "eps": 1.0, "steps": 2, "batch_size": 3}
    zoopt.tune(copy.deepcopy(model), task=task, run_dir=tmp_path, quiet=True, **made)
    in_training = [examples for examples in seen if len(examples) == 3]
    assert in_training
    for examples in seen:
        assert all(example["prompt"] == f"{example['text']} it" for example in examples)
