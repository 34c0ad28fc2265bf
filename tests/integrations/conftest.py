"""Tiny models and examples for the Hugging Face Trainer, and a function that makes trainers."""

import copy

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    TrainingArguments,
)

import zoopt

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(vocab_size=20, intermediate_size=32, max_position_embeddings=16, **SIZES)
    )


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20, intermediate_size=32, num_key_value_heads=1, pad_token_id=0, **SIZES
        )
    )


@pytest.fixture(scope="module")
def sentences():
    """Sixteen examples of six tokens; the first one tells the class."""
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 20, (16, 6), generator=drawn)
    return [{"input_ids": row, "labels": int(row[0] > 9)} for row in ids]


@pytest.fixture(scope="module")
def texts(sentences):
    """Texts of which more and more tokens count."""
    rows = []
    for number, sentence in enumerate(sentences):
        labels = sentence["input_ids"].clone()
        labels[: number % 5] = -100
        rows.append({"input_ids": sentence["input_ids"], "labels": labels})
    return rows


@pytest.fixture
def make_trainer(tmp_path):
    """``make_trainer(model, rows, max_steps=3, …)``: a trainer of a copy of the model."""
    names = set(TrainingArguments.__dataclass_fields__)

    def make(model, rows, **options):
        arguments = {name: options.pop(name) for name in set(options) & names}
        settings = {
            "output_dir": tmp_path / "out",
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        return zoopt.ZOTrainer(
            copy.deepcopy(model),
            TrainingArguments(**{**settings, **arguments}),
            train_dataset=rows,
            **options,
        )

    return make


@pytest.fixture(autouse=True)
def quiet(capsys):
    """The Trainer prints each log."""
    yield
    capsys.readouterr()
