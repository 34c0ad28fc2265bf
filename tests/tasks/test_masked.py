"""Masked language models: logits at the mask, of each text alone."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

import zoopt

ROWS = [
    {"text": "a b c", "label": "good"},
    {"text": "d", "label": "bad"},
    {"text": "e f a b c d", "label": "good"},
]
SHAPE = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "initializer_range": 0.5,
}


def make(kind):
    torch.manual_seed(0)
    if kind == "roberta":
        return RobertaForMaskedLM(RobertaConfig(**SHAPE)).eval()
    return BertForMaskedLM(BertConfig(**SHAPE)).eval()


def masked(tokenizer, rows=ROWS, **changes):
    options = {
        "tokenizer": tokenizer,
        "template": "{text} it was {mask} a",
        "verbalizer": {"bad": "bad", "good": "good"},
        **changes,
    }
    return zoopt.MaskedVerbalizer(rows, **options)


def test_the_mask_is_rendered_into_the_template(masking_tokenizer):
    task = masked(masking_tokenizer)
    (row,) = task.rows(ROWS[0])
    assert task.inputs.render(row) == "a b c it was <mask> a"
    kept = masking_tokenizer.convert_ids_to_tokens(task.inputs.ids(row))
    assert " ".join(kept) == "<s> a b c it was <mask> a </s>"


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("template", ["{text} it was {mask} a", "{mask} was {text}"])
def test_logits_are_those_at_the_mask_of_each_text_alone(masking_tokenizer, kind, template):
    """RoBERTa counts positions from another number than BERT, which padding must not change."""
    model = make(kind)
    task = masked(masking_tokenizer, template=template)
    together = task.predict(model, ROWS)
    words = masking_tokenizer.convert_tokens_to_ids(["bad", "good"])
    for row, scores in zip(ROWS, together, strict=True):
        text = template.format(text=row["text"], mask="<mask>")
        ids = masking_tokenizer(text)["input_ids"]
        with torch.no_grad():
            alone = model(torch.tensor([ids])).logits[0, ids.index(15), words]
        np.testing.assert_allclose(scores, alone.numpy(), rtol=1e-4, atol=1e-5)
    backwards = masked(masking_tokenizer, template=template, batch_size=2)
    np.testing.assert_allclose(
        backwards.predict(model, ROWS[::-1])[::-1], together, rtol=1e-4, atol=1e-5
    )


def test_long_texts_lose_their_beginning_but_not_their_first_token(masking_tokenizer):
    task = masked(masking_tokenizer, max_length=7)
    (row,) = task.rows(ROWS[2])
    kept = masking_tokenizer.convert_ids_to_tokens(task.inputs.ids(row))
    assert " ".join(kept) == "<s> d it was <mask> a </s>"


def test_a_mask_that_is_cut_off_is_told(masking_tokenizer):
    task = masked(masking_tokenizer, template="{mask} was {text}", max_length=6)
    with pytest.raises(ValueError, match=r"mask of .* is cut off: .* 10 tokens, .*max_length=6"):
        task.predict(make("bert"), ROWS[2:])


def test_a_mask_in_the_data_is_told(masking_tokenizer):
    rows = [{"text": "a <mask>", "label": "good"}]
    with pytest.raises(ValueError, match="has 2 masks"):
        masked(masking_tokenizer, rows).predict(make("bert"), rows)


@pytest.mark.parametrize("template", ["{text} it was", "{mask} {text} {mask}"])
def test_a_template_without_one_mask_is_refused(masking_tokenizer, template):
    with pytest.raises(ValueError, match=r"needs exactly one \{mask\}"):
        masked(masking_tokenizer, template=template)


def test_a_tokenizer_without_mask_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no mask token"):
        masked(tokenizer)


def test_wrong_labels_and_missing_columns_are_named(masking_tokenizer):
    task = masked(masking_tokenizer)
    with pytest.raises(ValueError, match=r"'ugly'.*not among the labels 'bad', 'good'"):
        task.references([{"text": "a", "label": "ugly"}])
    with pytest.raises(KeyError, match="needs column 'text'"):
        task.predict(make("bert"), [{"body": "a", "label": "good"}])
    with pytest.raises(ValueError, match="a word for each of two labels"):
        masked(masking_tokenizer, verbalizer={"good": "good"})
