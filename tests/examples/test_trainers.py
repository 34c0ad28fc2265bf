"""The Trainer's examples run as they are, on tiny models and a handful of reviews."""

import re

import peft
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from examples import trainer_causal_lm, trainer_classification, trainer_lora

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")

WORDS = ["<pad>", "<unk>", *"abcdef", "Review", "Sentiment", "positive", "negative", ":"]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}


@pytest.fixture
def reviews(tmp_path):
    kinds = ("negative", "positive")
    lines = [f"{i},{' '.join('abcdef'[i % 6 :] + 'fedcba')},{kinds[i % 2]},0" for i in range(24)]
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("\n".join(["id,text,label,rating", *lines]) + "\n")
    return tmp_path


def saved(model, folder):
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def told(capsys, name):
    """The two numbers that an example prints in the end."""
    found = re.search(rf"{name}: ([\d.]+) before, ([\d.]+) after", capsys.readouterr().out)
    return tuple(map(float, found.groups()))


def test_classification(reviews, tmp_path, capsys):
    model = saved(BertForSequenceClassification(BertConfig(**SIZES)).bert, tmp_path / "model")
    trainer_classification.main(model, reviews, steps=2, out=tmp_path / "out")
    before, after = told(capsys, "eval_loss")
    assert before != after
    assert (tmp_path / "out" / "checkpoint-2" / "model.safetensors").exists()


def test_causal_lm(reviews, tmp_path, capsys):
    model = saved(LlamaForCausalLM(LlamaConfig(**SIZES)), tmp_path / "model")
    trainer_causal_lm.main(model, reviews, steps=2, out=tmp_path / "out")
    assert told(capsys, "eval_loss")[0] == pytest.approx(2.56, rel=0.2)  # ln of 13 words


def test_lora(reviews, tmp_path, capsys):
    model = saved(LlamaForCausalLM(LlamaConfig(**SIZES)), tmp_path / "model")
    trainer_lora.main(model, reviews, steps=2, out=tmp_path / "out")
    assert told(capsys, "eval_loss")[0] == pytest.approx(2.56, rel=0.2)
    adapter = peft.PeftConfig.from_pretrained(tmp_path / "out")
    assert adapter.layers_to_transform == [0, 1, 2]
