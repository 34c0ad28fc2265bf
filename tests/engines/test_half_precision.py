"""Vectors of half-precision models: perturbed, updated and kept in fp32, unseen by the model."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoopt
from zoopt.engines import Copy, InPlace, Overlay
from zoopt.engines.interception.substitution import Watching
from zoopt.trajectory import checkpoint

HALVES = [torch.bfloat16, torch.float16]
each_half = pytest.mark.parametrize("dtype", HALVES, ids=str)


class Scale(nn.Module):
    """One operation on a weight of ones."""

    def __init__(self, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.operation = nn.Parameter(torch.ones(6)), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self.weight, x)


class LlamaNorm(nn.Module):
    """As transformers writes it: statistics in fp32, the weight in the dtype of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
        return self.weight * wide.to(x.dtype)


def written(w: Tensor, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:] = w
    return y.mul_(w).add_(x)


def in_its_room(w: Tensor, x: Tensor) -> Tensor:
    """What is made like a weight holds what is written to a part of it."""
    y = w.new_zeros(x.shape)
    y[:, 1:].copy_(x[:, 1:] * w[1:])
    return y * torch.ones_like(input=w)


def set_item(w: Tensor, x: Tensor) -> Tensor:
    made = w.clone()
    made[0] = 0.5
    made += 1
    return x * made


def scattered(w: Tensor, x: Tensor) -> Tensor:
    """A view of what was made is written to, and what it is a view of has it."""
    made = w * 1
    made[:3].add_(w[3:])
    return x * made


ROUNDED_ONCE: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.LayerNorm(6),
    "rms norm": lambda: nn.RMSNorm(6),
    "group norm": lambda: nn.GroupNorm(2, 6),
    "batch norm": lambda: nn.BatchNorm1d(6),
    "prelu": lambda: nn.PReLU(),
    "times": lambda: Scale(lambda w, x: w * x),
    "one plus": lambda: Scale(lambda w, x: x * (1.0 + w)),
    "view": lambda: Scale(lambda w, x: x + w.view(1, -1)),
    "expanded": lambda: Scale(lambda w, x: x + w[None].expand(5, -1)),
    "several views": lambda: Scale(lambda w, x: x * torch.cat([w[:3] + 1, w.flip(0)[3:]])),
    "data": lambda: Scale(lambda w, x: w.data * x),
    "cast": lambda: Scale(lambda w, x: (w.float() * x.float()).to(x.dtype)),
    "in place": lambda: Scale(lambda w, x: x.clone().mul_(w)),
    "put": lambda: Scale(lambda w, x: torch.mul(x, w, out=torch.empty_like(x))),
    "put first": lambda: Scale(lambda w, x: torch.add(w, x, out=torch.empty_like(x))),
    "room": lambda: Scale(in_its_room),
    "dtype": lambda: Scale(lambda w, x: (w.float() * x.float()).to(torch.result_type(w, x))),
    "type": lambda: Scale(lambda w, x: (w.type(torch.float32) * x.float()).type(x.type())),
    "chunks": lambda: Scale(lambda w, x: x * torch.cat(w.chunk(2)[::-1])),
    "numbers": lambda: Scale(lambda w, x: x * (torch.stack(list(w)) + w[0])),
    "largest": lambda: Scale(lambda w, x: x * (w * torch.arange(6)).max(0).values),
    "indexed": lambda: Scale(lambda w, x: x * w[torch.arange(6).flip(0)].masked_fill(w > 1, 1.0)),
    "set item": lambda: Scale(set_item),
    "relu in place": lambda: Scale(lambda w, x: x * F.relu_(w.clone())),
    "number in place": lambda: Scale(lambda w, x: x.clone().add_(w[1])),
}
"""What takes vectors alone, and rounds once: the fp32 module is a reference to the last bit."""

ROUNDED_MORE: dict[str, Callable[[], nn.Module]] = {
    "llama norm": LlamaNorm,
    "written": lambda: Scale(written),
    "put of vectors": lambda: Scale(lambda w, x: x + torch.mul(w, w, out=torch.empty_like(w))),
    "linear": lambda: nn.Linear(6, 4),
    "addmm": lambda: Scale(lambda w, x: torch.addmm(w, x, torch.eye(6, dtype=x.dtype))),
    "attention": lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
    "lstm": lambda: nn.Sequential(nn.LSTM(6, 5), First()),
}


def near_one(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """With other weights than 1, times which half-precision numbers stay such numbers."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype).eval()


class First(nn.Module):
    def forward(self, outputs: tuple[Tensor, Any]) -> Tensor:
        return outputs[0]


def probed(model: nn.Module, x: Tensor, engine: str, eps: float = 1e-3) -> list[Tensor]:
    """What the two probes of a step give."""
    outputs: list[Tensor] = []

    def closure() -> float:
        outputs.append(model(x))
        return 0.0

    zoopt.ZOOptimizer(model, engine=engine, estimator="spsa", eps=eps).step(closure)
    return outputs


def in_fp32(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The same in fp32 throughout, on the same numbers: vectors perturbed without rounding."""
    return probed(copy.deepcopy(model).float(), x.float(), "copy")


@each_half
@pytest.mark.parametrize("engine", ["overlay", "copy", "inplace"])
@pytest.mark.parametrize("name", ROUNDED_ONCE)
def test_a_vector_is_perturbed_as_in_fp32(name: str, engine: str, dtype: torch.dtype) -> None:
    model, x = near_one(ROUNDED_ONCE[name](), dtype), torch.randn(5, 6).to(dtype)
    expected = [y.to(dtype) for y in in_fp32(model, x)]
    found = probed(model, x, engine)
    assert not torch.equal(*expected)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@each_half
@pytest.mark.parametrize("engine", ["overlay", "copy", "inplace"])
@pytest.mark.parametrize("name", ROUNDED_MORE)
def test_no_module_notices(name: str, engine: str, dtype: torch.dtype) -> None:
    model, x = near_one(ROUNDED_MORE[name](), dtype), torch.randn(5, 6).to(dtype)
    for found, expected in zip(probed(model, x, engine), in_fp32(model, x), strict=True):
        assert found.dtype == dtype
        scale = expected.abs().max().item()
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02 * scale)


@each_half
def test_the_engines_see_the_same_probes(dtype: torch.dtype) -> None:
    model = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).to(dtype)
    x = torch.randn(2, 5, 6).to(dtype)
    copied, overlaid = (probed(model, x, engine) for engine in ("copy", "overlay"))
    assert all(map(torch.equal, copied, overlaid))


@each_half
def test_the_batched_engine_sees_the_probes_of_the_others(dtype: torch.dtype) -> None:
    model = near_one(nn.Sequential(nn.LayerNorm(6), LlamaNorm()), dtype)
    x = torch.randn(5, 6).to(dtype)
    outputs: list[Tensor] = []

    def closure(population: zoopt.Population) -> list[float]:
        outputs.append(model(population.expand(x)))
        return [0.0] * population.size

    together, one_by_one = (
        zoopt.ZOOptimizer(model, estimator="spsa", eps=1e-3, direction="lowrank", engine=engine)
        for engine in ("batched", "overlay")
    )
    together.step(closure)
    batch = outputs[-1]
    outputs.clear()
    one_by_one.step(closure)
    assert batch.dtype == dtype
    ulp = torch.finfo(dtype).eps * batch.float().abs().max().item()
    torch.testing.assert_close(batch.float(), torch.cat(outputs).float(), rtol=0, atol=2 * ulp)
    assert not torch.equal(*batch.chunk(2))


def test_what_is_done_to_a_cast_of_a_vector_is_not_done_to_the_vector(engine_name: str) -> None:
    weight, x = nn.Parameter(torch.ones(6, dtype=torch.bfloat16)), torch.randn(5, 6)
    outputs: list[Tensor] = []

    def closure() -> float:
        for _ in range(2):
            wide = weight.float()
            outputs.append(x * wide.mul_(2.0))
        return 0.0

    zoopt.ZOOptimizer([weight], engine=engine_name, eps=1e-3).step(closure)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_a_result_has_the_dtype_that_autocast_gives_it() -> None:
    class Replaced(Watching):
        def replaced(self, tensor: Tensor) -> Tensor:
            return weight.detach().float() if tensor is weight else tensor

    x = torch.randn(5, 6).bfloat16()
    weight = nn.Parameter(torch.ones(6, dtype=torch.bfloat16))
    for autocast in (False, True):
        with torch.autocast("cpu", enabled=autocast), torch.no_grad():
            expected = F.layer_norm(x, (6,), weight), F.rms_norm(x, (6,), weight), x * weight
            with Replaced([id(weight)]):
                found = F.layer_norm(x, (6,), weight), F.rms_norm(x, (6,), weight), x * weight
        assert [y.dtype for y in found] == [y.dtype for y in expected]


# ------------------------------------------------------------------------------------------ updates


@each_half
def test_updates_of_vectors_are_those_of_fp32(
    engine_name: str, update_name: str, dtype: torch.dtype
) -> None:
    """Of ones; no update reaches half a unit in the last place, and together they are many."""
    half, full = nn.Parameter(torch.ones(9, dtype=dtype)), nn.Parameter(torch.ones(9))
    lr = {"adam": 1e-5}.get(update_name, 1e-4)
    losses = iter(torch.randn(200).tolist() * 2)
    made = []
    for x in (half, full):
        optimizer = zoopt.ZOOptimizer(
            [x], lr, "spsa", engine=engine_name, update=update_name, eps=1e-3
        )
        made.append(optimizer)
        for _ in range(100):
            optimizer.step(lambda x=x: x.sum().item() * 0 + next(losses))
    (slot,) = made[0].slots
    assert not torch.equal(full, torch.ones(9))
    assert torch.equal(slot.exact, full)
    assert torch.equal(half, full.to(dtype))


def normed(dtype: torch.dtype = torch.bfloat16) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 1)).to(dtype)


def loss_of(model: nn.Module) -> Callable[[], float]:
    x = torch.linspace(-1, 1, 40).view(10, 4)
    return lambda: (model(x.to(model[0].weight.dtype)).float() ** 2).mean().item()


def exact(optimizer: zoopt.ZOOptimizer) -> Tensor:
    return torch.cat([slot.exact.detach().flatten().float() for slot in optimizer.slots])


@pytest.mark.parametrize("model_first", [True, False])
def test_masters_are_part_of_the_state(engine_name: str, model_first: bool, tmp_path: Any) -> None:
    def make() -> tuple[nn.Module, zoopt.ZOOptimizer]:
        model = normed()
        return model, zoopt.ZOOptimizer(model, 1e-4, engine=engine_name)

    model, whole = make()
    for step in range(6):
        if step == 3:
            torch.save((model.state_dict(), whole.state_dict()), tmp_path / "state.pt")
            checkpoint.save(tmp_path / "state.safetensors", whole, {})
        whole.step(loss_of(model))
    theta, state = torch.load(tmp_path / "state.pt")
    again, loaded = make()
    if model_first:
        again.load_state_dict(theta)
        loaded.load_state_dict(state)
    else:
        loaded.load_state_dict(state)
        again.load_state_dict(theta)
    third, resumed = make()
    checkpoint.load(tmp_path / "state.safetensors", resumed)
    for other, optimizer in ((again, loaded), (third, resumed)):
        for _ in range(3):
            optimizer.step(loss_of(other))
        assert torch.equal(exact(optimizer), exact(whole))
        assert all(map(torch.equal, other.parameters(), model.parameters()))


def test_what_others_write_to_a_parameter_counts(engine_name: str) -> None:
    model = normed()
    optimizer = zoopt.ZOOptimizer(model, 1e-4, engine=engine_name)
    for _ in range(3):
        optimizer.step(loss_of(model))
    kept = optimizer.slots[2].exact.clone()
    assert not torch.equal(kept, kept.bfloat16().float())
    with torch.no_grad():
        model[1].weight[1:3] = 3.0
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step(loss_of(model))
    expected = torch.where(torch.tensor([0, 1, 1, 0, 0, 0]) == 1, torch.tensor(3.0), kept)
    if engine_name == "inplace":  # restores within 2 ulp
        torch.testing.assert_close(optimizer.slots[2].exact, expected, rtol=1e-6, atol=0)
    else:
        assert torch.equal(optimizer.slots[2].exact, expected)


def test_masters_outlive_a_new_group() -> None:
    model = normed()
    optimizer = zoopt.ZOOptimizer(model[1].named_parameters(), 1e-4)
    optimizer.step(loss_of(model))
    before = exact(optimizer)
    optimizer.add_param_group({"params": list(model[0].named_parameters())})
    assert torch.equal(exact(optimizer)[: len(before)], before)


# ----------------------------------------------------------------------------------- which engine


def test_mezo_is_overlay_in_half_precision_and_copy_where_modules_are_compiled() -> None:
    assert isinstance(zoopt.ZOOptimizer(normed()).engine, Overlay)
    assert isinstance(zoopt.ZOOptimizer(normed(torch.float32)).engine, InPlace)
    model = normed()
    model[0].compile(backend="eager")
    optimizer = zoopt.ZOOptimizer(model, 0.0)
    assert isinstance(optimizer.engine, Copy)
    optimizer.step(loss_of(model))


def test_vectors_alone_are_tuned_in_place() -> None:
    assert isinstance(zoopt.ZOOptimizer(normed(), params=["*bias", "1.*"]).engine, InPlace)


@pytest.mark.parametrize("times", [31, 32])
def test_overlay_says_when_a_matrix_is_perturbed_for_each_token(
    times: int, caplog: pytest.LogCaptureFixture
) -> None:
    model, x = nn.Linear(3, 3), torch.ones(1, 3)
    optimizer = zoopt.ZOOptimizer(model, engine="overlay")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            optimizer.step(lambda: sum(model(x).sum() for _ in range(times)))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (times == 32)
    assert all("perturbed weight 32 times" in text and "engine='copy'" in text for text in said)


@each_half
def test_2000_probe_cycles_leave_no_trace(dtype: torch.dtype) -> None:
    matrix = nn.Parameter(0.02 * torch.randn(8, 6).to(dtype))
    scale = nn.Parameter(torch.randn(8).to(dtype))
    before = matrix.detach().clone(), scale.detach().clone()
    optimizer = zoopt.ZOOptimizer([matrix, scale], lr=0.0, direction="rademacher")
    for _ in range(2000):
        optimizer.step(lambda: (scale @ matrix).sum().float())
    assert torch.equal(matrix, before[0])
    assert torch.equal(scale, before[1])
    assert torch.equal(exact(optimizer), torch.cat([p.flatten().float() for p in before]))


def test_in_place_the_matrices_drift() -> None:
    model = normed()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = zoopt.ZOOptimizer(model, lr=0.0, engine="inplace")
    for _ in range(200):
        optimizer.step(loss_of(model))
    same = [torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert same == [p.ndim < 2 for p in before]
