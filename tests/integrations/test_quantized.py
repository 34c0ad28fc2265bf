"""Quantized models: LoRA over a frozen base, and their scales, with whatever library is there.

GGUF has no test: transformers dequantizes such a file when it loads it, and the model is any other.
"""

import copy
import warnings
from collections.abc import Callable

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import zoopt
from zoopt.trajectory import header

CONFIG = LlamaConfig(
    vocab_size=32,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    initializer_range=0.2,
)
LoRA = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
Replace = Callable[[nn.Linear], nn.Module]


def torchao(model: nn.Module) -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())


def hqq(model: nn.Module) -> None:
    quantize = pytest.importorskip("hqq.core.quantize", reason="hqq is not installed")
    config = quantize.BaseQuantizeConfig(nbits=4, group_size=64)
    options = {"compute_dtype": torch.float32, "device": "cpu"}
    replace_linear(model, lambda layer: quantize.HQQLinear(layer, config, **options))


def bitsandbytes_8(model: nn.Module) -> None:
    layers = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed").nn

    def quantized(layer: nn.Linear) -> nn.Module:
        size = layer.in_features, layer.out_features, layer.bias is not None
        made = layers.Linear8bitLt(*size, has_fp16_weights=False)
        made.load_state_dict(layer.state_dict())
        return made.to("cpu")

    replace_linear(model, quantized)
    model.is_loaded_in_8bit = True


def bitsandbytes_4(model: nn.Module) -> None:
    layers = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed").nn

    def quantized(layer: nn.Linear) -> nn.Module:
        size = layer.in_features, layer.out_features, layer.bias is not None
        options = {"compute_dtype": torch.float32, "compress_statistics": False}
        made = layers.Linear4bit(*size, quant_type="nf4", **options)
        made.load_state_dict(layer.state_dict())
        return made.to("cpu")

    replace_linear(model, quantized)
    model.is_loaded_in_4bit = True


def replace_linear(model: nn.Module, make: Replace) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name != "lm_head":
                setattr(module, name, make(child))


LIBRARIES = [torchao, hqq, bitsandbytes_8, bitsandbytes_4]
each_library = pytest.mark.parametrize("quantize", LIBRARIES, ids=lambda each: each.__name__)


@pytest.fixture(autouse=True)
def libraries_may_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def quantized_llama(quantize: Callable[[nn.Module], None]) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    quantize(model)
    return model


def loss_of(model: nn.Module) -> Callable[[], Tensor]:
    ids = torch.arange(12).view(2, 6)
    return torch.no_grad()(lambda: model(input_ids=ids, labels=ids).loss)


def numbers(tensor: Tensor) -> Tensor:
    """What a tensor holds: torchao's integers rather than what they stand for."""
    return (tensor.qdata if hasattr(tensor, "qdata") else tensor).detach().clone()


@each_library
def test_lora_over_a_quantized_base(quantize):
    model = peft.get_peft_model(quantized_llama(quantize), LoRA).eval()
    loss = loss_of(model)
    before = float(loss())  # at its first forward bitsandbytes packs the weights for the CPU
    base = {n: numbers(p) for n, p in model.named_parameters() if "lora" not in n}
    assert {torch.int8, torch.uint8} & {tensor.dtype for tensor in base.values()}
    optimizer = zoopt.ZOOptimizer(model, lr=0.03, estimator=zoopt.NSPSA(eps=1e-2, n=4))
    assert optimizer.engine.name == "inplace"
    assert all("lora" in slot.name for slot in optimizer.slots)
    for _ in range(40):
        optimizer.step(loss)
    assert float(loss()) < before - 0.05
    after = {n: numbers(p) for n, p in model.named_parameters() if "lora" not in n}
    assert all(torch.equal(after[name], base[name]) for name in base)


@each_library
def test_scales_of_a_quantized_model(quantize):
    model = quantized_llama(quantize)
    scales = zoopt.quantization_scales(model)
    assert len(scales) == 7 + (quantize is torchao)  # it does the head as well
    held = {id(scale) for _, scale in scales}
    base = {n: numbers(p) for n, p in model.named_parameters() if id(p) not in held}
    eps = 0.1 * float(scales[0][1].median())
    optimizer = zoopt.ZOOptimizer(
        scales, lr=eps**2, estimator=zoopt.qzo(eps=eps, n=4), update="projected"
    )
    loss = loss_of(model)
    before = float(loss())
    for _ in range(60):
        optimizer.step(loss)
    assert float(loss()) < before - 0.02
    assert all(float(scale.min()) >= 0 for _, scale in scales)
    after = {n: numbers(p) for n, p in model.named_parameters() if id(p) not in held}
    assert all(torch.equal(after[name], base[name]) for name in base)


@each_library
def test_tuning_packed_numbers_is_refused(quantize):
    model = quantized_llama(quantize)
    name, weight = next(
        (n, p)
        for n, p in model.named_parameters()
        if "q_proj" in n and zoopt.parameters.quantized.packing(p)
    )
    for source, params in ((model, name), ([(name, weight)], None)):
        with pytest.raises(TypeError, match=r"LoRA adapters .* or its scales") as refusal:
            zoopt.ZOOptimizer(source, params=params)
        assert name in str(refusal.value)


def test_a_packed_tensor_that_poses_as_floating_point_is_refused():
    model = quantized_llama(torchao)
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert weight.dtype == torch.float32
    weight.requires_grad_(True)
    with pytest.raises(TypeError, match="is Int8Tensor"):
        zoopt.ZOOptimizer([weight])


def test_a_model_without_scales_is_an_error():
    with pytest.raises(ValueError, match="Linear has no quantized layer"):
        zoopt.quantization_scales(nn.Linear(2, 2))


# -------------------------------------------------------------------------------------- QZO's parts


class Int8Linear(nn.Module):
    """Rows of integers, each with a scale."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("integers", (layer.weight.detach() / scale).round().to(torch.int8))
        self.scale = nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.integers * self.scale).T


def published_qzo(
    scale: Tensor, loss: Callable[[Tensor], float], z: Tensor, eps: float, clip: float, lr: float
) -> Tensor:
    """One step of QZO, equations 5 to 7, on a scale and a direction."""
    c = (loss(scale + eps * z) - loss(scale - eps * z)) / (2 * eps)
    return (scale - lr * max(-clip, min(clip, c)) * z).clamp(min=0)


@pytest.mark.parametrize("clip", [1e-3, 100.0])
def test_qzo_is_the_published_step(engine_name, clip):
    torch.manual_seed(0)
    layer, x = Int8Linear(nn.Linear(5, 4, bias=False)), torch.randn(7, 5)
    y = x @ torch.randn(5, 4)
    theta = layer.scale.detach().clone()
    optimizer = zoopt.ZOOptimizer(
        [layer.scale], 2e-2, zoopt.qzo(eps=1e-4, clip=clip), engine=engine_name, update="projected"
    )

    def loss(scale: Tensor) -> float:
        return float(((x @ (layer.integers * scale).T - y) ** 2).mean())

    for _ in range(20):
        optimizer.step(lambda: loss(layer.scale))
        z = torch.zeros(4, 1)
        (seed,) = optimizer.estimated.seeds
        optimizer.direction.add_(zoopt.interfaces.Change.of(z, 0, ((seed, 1.0),)))
        theta = published_qzo(theta, loss, z, 1e-4, clip, 2e-2)
        assert optimizer.estimated.coefficients[0] <= clip
    torch.testing.assert_close(layer.scale.detach(), theta, rtol=1e-2, atol=1e-5)
    assert bool((theta == 0).any()) == (clip == 100.0)


def test_projection_and_clipping_are_repeated_from_the_log():
    records = []
    first = nn.Parameter(torch.full((6, 1), 0.01))
    again = copy.deepcopy(first)
    options = {"lr": 0.1, "estimator": zoopt.qzo(clip=0.05), "update": "projected"}
    optimizer, repeater = (zoopt.ZOOptimizer([x], **options) for x in (first, again))
    optimizer.recorder = records.append
    for _ in range(10):
        optimizer.step(lambda: first.sin().sum())
    for record in records:
        repeater.repeat(record)
    assert torch.equal(first, again)
    assert float(first.min()) == 0.0


def test_a_bound_on_the_projected_gradient_must_be_positive():
    with pytest.raises(ValueError, match="clip=0 must be positive"):
        zoopt.NSPSA(clip=0)


@each_library
def test_a_log_knows_the_rest_of_a_quantized_model(quantize):
    def frozen(change: float = 0.0, forwards: int = 0) -> str:
        model = peft.get_peft_model(quantized_llama(quantize), LoRA).eval()
        with torch.no_grad():
            model.get_input_embeddings().weight[3, 4] += change
        for _ in range(forwards):
            loss_of(model)()
        return header.fingerprint(header.frozen_part(model, zoopt.ZOOptimizer(model).slots))

    assert frozen() == frozen(forwards=1) != frozen(change=0.1)
