"""Similarity: cosines of the means of hidden states, with padding left out."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, LlamaModel, RobertaConfig, RobertaModel

import zoopt

ROWS = [
    {"sentence1": "a b c", "sentence2": "d", "label": 0.25},
    {"sentence1": "e f a b c d", "sentence2": "e f", "label": 0.75},
    {"sentence1": "fine", "sentence2": "fine", "label": 1.0},
]


def encoder(config, kind):
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaModel(config).eval()
    shape = {"max_position_embeddings": 40, "pad_token_id": 0, "hidden_size": 16}
    shape |= {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return RobertaModel(RobertaConfig(vocab_size=16, **shape)).eval()


def cosine(model, tokenizer, first, second):
    """Of each text alone, without padding."""
    means = []
    for text in (first, second):
        with torch.no_grad():
            out = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state
        means.append(out[0].double().mean(0))
    return torch.nn.functional.cosine_similarity(*means, dim=0).item()


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_values_are_cosines_of_mean_states_of_each_text_alone(tokenizer, config, kind):
    model = encoder(config, kind)
    task = zoopt.Similarity(ROWS, tokenizer=tokenizer, template="it was {text}")
    assert [task.inputs.render(row) for row in task.rows(ROWS[0])] == ["it was a b c", "it was d"]
    found = task.predict(model, ROWS)
    expected = [
        cosine(model, tokenizer, f"it was {r['sentence1']}", f"it was {r['sentence2']}")
        for r in ROWS
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[2] == pytest.approx(1.0)
    pieces = zoopt.Similarity(ROWS, tokenizer=tokenizer, template="it was {text}", batch_size=1)
    np.testing.assert_allclose(pieces.predict(model, ROWS[::-1])[::-1], found, rtol=1e-5)


def test_metrics_of_values_apply(tokenizer, config):
    model = encoder(config, "llama")
    task = zoopt.Similarity(ROWS, tokenizer=tokenizer)
    found = task.predict(model, ROWS)
    objective = zoopt.TaskObjective(task, zoopt.get_objective("mse"))
    assert objective.value(model, ROWS) == pytest.approx(np.mean((found - [0.25, 0.75, 1]) ** 2))
    with pytest.raises(ValueError, match="gives values"):
        zoopt.TaskObjective(task, zoopt.get_objective("accuracy"))


def test_items_of_any_kind_go_through_collate():
    rows = [{"left": [1.0, 0.0], "right": [1.0, 1.0], "same": 1.0}]
    task = zoopt.Similarity(
        rows,
        columns=("left", "right"),
        target="same",
        collate=lambda batch: torch.tensor([row["text"] for row in batch]),
    )
    assert task.predict(torch.nn.Linear(2, 2, bias=False), rows).shape == (1,)
    model = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.eye_(model.weight)
    assert task.predict(model, rows)[0] == pytest.approx(0.5**0.5)
    torch.nn.init.zeros_(model.weight)
    assert task.predict(model, rows)[0] == 0.0


def test_mistakes_are_told(tokenizer, config):
    with pytest.raises(ValueError, match="expected two columns"):
        zoopt.Similarity(ROWS, tokenizer=tokenizer, columns=("sentence1",))
    task = zoopt.Similarity(ROWS, tokenizer=tokenizer, columns=("sentence1", "other"))
    with pytest.raises(KeyError, match="no text in column 'other' to compare"):
        task.predict(encoder(config, "llama"), ROWS)
    with pytest.raises(TypeError, match="no embeddings"):
        zoopt.Similarity(ROWS, tokenizer=tokenizer).predict(LlamaForCausalLM(config), ROWS)
