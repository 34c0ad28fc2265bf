"""A vocabulary of thirteen words, tokenizers of it, and the shape of a small Llama."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast

WORDS = ["<pad>", "<unk>", "a", "b", "c", "d", "e", "f", "good", "bad", "fine", "it", "was"]
SPECIAL = ["<s>", "</s>", "<mask>"]


def make(words, template=None, **options):
    """A tokenizer of words; ``template`` is what any text gets around it, as ``<s> $A </s>``."""
    vocabulary = {word: i for i, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if template is not None:
        around = [(token, vocabulary[token]) for token in template.split() if token != "$A"]
        made.post_processor = processors.TemplateProcessing(template, special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", model_max_length=64, **options
    )


@pytest.fixture(scope="session")
def word_level():
    return make


@pytest.fixture(scope="module")
def tokenizer():
    return make(WORDS)


@pytest.fixture(scope="module")
def masking_tokenizer():
    """One with a mask, and with a token before and after each text."""
    return make([*WORDS, *SPECIAL], "<s> $A </s>", mask_token="<mask>")


@pytest.fixture(scope="module")
def config():
    return LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
    )
