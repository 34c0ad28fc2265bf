"""A sequence classifier as reward: its numbers, and that no probe gets into it."""

import copy

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

import zoopt

WORDS = ["<pad>", "<unk>", "a", "b", "c", "d", "good", "bad", "it", "was"]
EXAMPLES = [{"prompt": "it was "}, {"prompt": "a b c d "}, {"prompt": "a "}]
TEXTS = ["good", "bad bad", "c d"]


@pytest.fixture(scope="module")
def tokenizer():
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )


def config(**more):
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    return LlamaConfig(**{**sizes, **heads, "pad_token_id": 0, "use_cache": False, **more})


def classifier(**more):
    torch.manual_seed(1)
    return LlamaForSequenceClassification(config(**more)).eval()


def one_by_one(model, tokenizer, texts):
    with torch.no_grad():
        rows = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]
    return torch.stack(rows)


JOINED = [e["prompt"] + t for e, t in zip(EXAMPLES, TEXTS, strict=True)]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_one_output_is_the_reward_as_it_is(tokenizer, batch_size):
    model = classifier(num_labels=1).train()
    reward = zoopt.reward_model(model, tokenizer, batch_size=batch_size)
    metric = zoopt.metric(reward)
    assert (metric.name, metric.needs) == ("reward_model", "completions")
    assert metric.higher_is_better
    assert metric.about.startswith("A reward function that evaluates a sequence classifier")
    model.eval()
    expected = one_by_one(model, tokenizer, JOINED)[:, 0]
    model.train()
    assert metric(TEXTS, EXAMPLES) == pytest.approx(expected.mean().item(), rel=1e-5)
    assert model.training


@pytest.mark.parametrize("label", ["fine", 2])
def test_of_several_outputs_a_label_is_chosen_by_its_probability(tokenizer, label):
    model = classifier(id2label={0: "awful", 1: "poor", 2: "fine"})
    reward = zoopt.reward_model(model, tokenizer, label=label)
    expected = one_by_one(model, tokenizer, JOINED).softmax(1)[:, 2]
    found = reward(prompts=[e["prompt"] for e in EXAMPLES], completions=TEXTS)
    assert found == pytest.approx(expected.tolist(), rel=1e-5)
    assert zoopt.rewards([reward, reward], [1, 2])(TEXTS, EXAMPLES) == pytest.approx(
        3 * expected.mean().item(), rel=1e-5
    )


def test_a_conversation_is_read_through_the_chat_template(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} it {% endfor %}"
    model = classifier(num_labels=1)
    metric = zoopt.metric(zoopt.reward_model(model, tokenizer))
    expected = one_by_one(model, tokenizer, ["a b it good it"]).item()
    chat = [{"prompt": [{"role": "user", "content": "a b"}]}]
    assert metric(["good"], chat) == pytest.approx(expected, rel=1e-5)


def test_special_tokens_are_those_of_the_chat_template(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }} {% endfor %}"
    model = classifier(num_labels=1, vocab_size=len(tokenizer))
    reward = zoopt.reward_model(model, tokenizer)
    chat = [{"role": "user", "content": "a b"}], [{"role": "assistant", "content": "good"}]
    expected = one_by_one(model, tokenizer, ["a b good"]).item()
    assert reward([chat[0]], [chat[1]]) == pytest.approx([expected], rel=1e-5)
    assert reward(["a b "], ["good"]) == pytest.approx([expected], rel=1e-5)


def test_what_is_too_long_loses_its_beginning(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = 3
    model = classifier(num_labels=1)
    reward = zoopt.reward_model(model, tokenizer)
    expected = one_by_one(model, tokenizer, ["d bad bad"]).item()
    assert reward(["a b c d "], ["bad bad"]) == pytest.approx([expected], rel=1e-5)
    assert tokenizer.truncation_side == "right"


def test_a_folder_is_loaded_and_keeps_the_end_of_what_is_too_long(tokenizer, tmp_path):
    model = classifier(num_labels=1)
    model.save_pretrained(tmp_path)
    short = copy.deepcopy(tokenizer)
    short.model_max_length = 3
    short.save_pretrained(tmp_path)
    reward = zoopt.reward_model(tmp_path)
    expected = one_by_one(model, tokenizer, ["d bad bad"]).item()
    assert reward(["a b c d "], ["bad bad"]) == pytest.approx([expected], rel=1e-5)


def task(tokenizer):
    return zoopt.Generation(EXAMPLES, tokenizer=tokenizer, max_new_tokens=4)


def tuned():
    torch.manual_seed(2)
    return LlamaForCausalLM(config(use_cache=True)).eval()


ENGINES = [
    ("inplace", "rademacher"),
    ("copy", "gaussian"),
    ("overlay", "rademacher"),
    ("batched", "lowrank"),
]


@pytest.mark.parametrize(("engine", "direction"), ENGINES)
def test_no_engine_gets_into_it(tokenizer, engine, direction):
    """What it says within a probe is what it says of the same texts outside."""
    judge, lm = classifier(num_labels=1), tuned()
    reward = zoopt.reward_model(judge, tokenizer)
    kept = copy.deepcopy(judge.state_dict())
    seen = []

    def watched(prompts, completions):
        seen.append((list(prompts), list(completions), reward(prompts, completions)))
        return seen[-1][2]

    objective = zoopt.TaskObjective(task(tokenizer), zoopt.metric(watched))
    opt = zoopt.ZOOptimizer(
        lm, lr=0.1, eps=0.5, engine=engine, direction=direction, estimator=zoopt.NSPSA(n=2)
    )
    for _ in range(2):
        opt.step(lambda population: objective.values(lm, EXAMPLES, population))
    assert len({tuple(texts) for _, texts, _ in seen}) > 1
    for prompts, texts, rewards in seen:
        joined = [p + t for p, t in zip(prompts, texts, strict=True)]
        expected = one_by_one(judge, tokenizer, joined)[:, 0].tolist()
        assert rewards == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for name, value in judge.state_dict().items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize(("engine", "direction"), ENGINES)
def test_a_model_does_not_reward_itself(tokenizer, engine, direction):
    """Also where only the body is shared, as by a head on the language model's own layers."""
    judge, lm = classifier(num_labels=1), tuned()
    judge.model = lm.model
    before = copy.deepcopy(lm.state_dict())
    objective = zoopt.TaskObjective(
        task(tokenizer), zoopt.metric(zoopt.reward_model(judge, tokenizer))
    )
    opt = zoopt.ZOOptimizer(lm, lr=0.1, eps=0.5, engine=engine, direction=direction)
    told = r"parameter model\.\S+ has changed .* itself being tuned.*deepcopy"
    if engine == "batched":
        told = r"a number was read from model\.\S+ .* is tuned, so that it differs"
    with pytest.raises((ValueError, NotImplementedError), match=told):
        opt.step(lambda population: objective.values(lm, EXAMPLES, population))
    for name, value in lm.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)


def test_wrong_uses(tokenizer):
    two = classifier(id2label={0: "bad", 1: "good"})
    with pytest.raises(ValueError, match=r"has 2 outputs: choose .* label=.* of 'bad', 'good'"):
        zoopt.reward_model(two, tokenizer)
    with pytest.raises(ValueError, match="label='best' is not one of the reward model's: 'bad', "):
        zoopt.reward_model(two, tokenizer, label="best")
    with pytest.raises(ValueError, match="has one output, which is the reward: remove label='goo"):
        zoopt.reward_model(classifier(num_labels=1), tokenizer, label="good")
    with pytest.raises(TypeError, match="got a model without a tokenizer"):
        zoopt.reward_model(two)
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        zoopt.reward_model(two, tokenizer, label=0, batch_size=0)
