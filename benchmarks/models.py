"""The models and sentences that benchmarks run on. They lie in the cache, never in git.

`examples/fetch.py` brings SmolLM2-135M and the reviews, `examples/stories.py` stories15M. OPT
and Llama models have their published shapes and random weights.
"""

import os
import warnings
from pathlib import Path

import pandas as pd
import torch
import transformers

from examples import stories

CACHE = Path(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt").expanduser()

OPT_SHAPES = {  # hidden size, layers, heads
    "125m": (768, 12, 12),
    "1.3b": (2048, 24, 32),
    "13b": (5120, 40, 40),
    "30b": (7168, 48, 56),
    "66b": (9216, 64, 72),
}
LLAMA_SHAPES = {  # hidden size, of the feed-forward, layers, heads, vocabulary
    "1b": (2048, 8192, 16, 32, 128256),
}


def examples(split):
    """The reviews of a split: dicts with id, text, label and rating."""
    return pd.read_csv(CACHE / f"reviews/{split}.csv").to_dict("records")


def smollm2(dtype=torch.float32):
    """SmolLM2-135M-Instruct and its tokenizer."""
    folder = CACHE / "smollm2-135m-instruct"
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no {folder}: run `python examples/fetch.py` first")
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def with_lora(model):
    """The model with adapters of rank 8 on its queries and values, in fp32, which alone are tuned.

    Hu et al. 2021, arXiv 2106.09685.
    """
    import peft

    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        return peft.get_peft_model(model, config)


def opt(size, dtype=torch.float32):
    """A model of OPT's shape (Zhang et al. 2022, arXiv 2205.01068, table 1), weights random."""
    width, layers, heads = OPT_SHAPES[size]
    config = transformers.OPTConfig(
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def llama(size, dtype=torch.float32):
    """A model of Llama 3.2's shape, weights random: no biases, and keys shared by four queries."""
    width, hidden, layers, heads, vocabulary = LLAMA_SHAPES[size]
    config = transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
    )
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def stories15m(dtype=torch.float32):
    """The 15M-parameter Llama that writes small children's stories, and its tokenizer."""
    folder = stories.fetch(CACHE)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)
