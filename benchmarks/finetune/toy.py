"""A language model of a few thousand weights, and sentences made up of thirty words."""

import random

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

GOOD, BAD = ("fine", "funny", "moving", "clever"), ("dull", "flat", "silly", "trite")
PLAIN = ("the", "plot", "cast", "score", "film", "and", "with", "a")
ASKED = ("Review", ":", "Sentiment", "The", "movie", "was", "negative", "positive")
BANDS = ("terrible", "bad", "okay", "good", "great")


def load(dtype=torch.float32):
    """A random Llama of three layers, and a tokenizer of whole words."""
    words = ["<pad>", "<unk>", *GOOD, *BAD, *PLAIN, *ASKED, *BANDS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", model_max_length=512
    )
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
    return model.to(dtype).eval(), tokenizer


def examples(split, count=64):
    """Sentences with up to three words that say their rating, which is from -3 to 3."""
    drawn = random.Random(split)
    rows = []
    for _ in range(count):
        rating = drawn.uniform(-3, 3)
        strong = drawn.choices(GOOD if rating > 0 else BAD, k=1 + int(abs(rating)))
        words = strong + drawn.choices(PLAIN, k=drawn.randint(3, 8))
        drawn.shuffle(words)
        label = "positive" if rating > 0 else "negative"
        rows.append({"text": " ".join(words), "rating": rating, "label": label})
    return rows
