"""A llama2.c file is read as the model that it is, by a forward written from llama2.c's layout."""

import numpy as np
import torch

from examples import stories

WIDTH, HIDDEN, LAYERS, HEADS, VOCABULARY, LENGTH = 16, 24, 2, 2, 11, 8


def weights():
    drawn = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=drawn) * 0.3

    return {
        "embedding": draw(VOCABULARY, WIDTH),
        "attention_norm": draw(LAYERS, WIDTH),
        **{name: draw(LAYERS, WIDTH, WIDTH) for name in ("q", "k", "v", "o")},
        "mlp_norm": draw(LAYERS, WIDTH),
        "gate": draw(LAYERS, HIDDEN, WIDTH),
        "down": draw(LAYERS, WIDTH, HIDDEN),
        "up": draw(LAYERS, HIDDEN, WIDTH),
        "norm": draw(WIDTH),
    }


def norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


def rotate(x):
    """RoPE of pairs side by side; x has shape (time, heads, head)."""
    head = x.shape[-1]
    angles = torch.arange(x.shape[0])[:, None] * 10000.0 ** -(torch.arange(0, head, 2) / head)
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(
        torch.ones_like(angles), angles
    ).unsqueeze(1)
    return torch.view_as_real(turned).flatten(-2)


def forward(w, ids):
    x = w["embedding"][ids]
    for layer in range(LAYERS):
        y = norm(x, w["attention_norm"][layer])
        q, k, v = ((y @ w[name][layer].T).unflatten(-1, (HEADS, -1)) for name in "qkv")
        heads = torch.nn.functional.scaled_dot_product_attention(
            *(t.transpose(0, 1) for t in (rotate(q), rotate(k), v)), is_causal=True
        )
        x = x + heads.transpose(0, 1).flatten(1) @ w["o"][layer].T
        y = norm(x, w["mlp_norm"][layer])
        gated = torch.nn.functional.silu(y @ w["gate"][layer].T) * (y @ w["up"][layer].T)
        x = x + gated @ w["down"][layer].T
    return norm(x, w["norm"]) @ w["embedding"].T


def test_a_llama2c_file_is_read_as_the_model_it_is():
    w = weights()
    header = np.array([WIDTH, HIDDEN, LAYERS, HEADS, HEADS, VOCABULARY, LENGTH], "<i4")
    data = header.tobytes() + b"".join(tensor.numpy().tobytes() for tensor in w.values())
    ids = torch.tensor([3, 1, 4, 1, 5])
    with torch.no_grad():
        found = stories.from_llama2c(data)(input_ids=ids[None]).logits[0]
    torch.testing.assert_close(found, forward(w, ids), rtol=1e-4, atol=1e-4)
