"""Stand-ins for half-precision vectors: there during a probe, seen by nobody, gone afterwards."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack as modes

import zoopt


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.LayerNorm(6)).bfloat16()


def optimizer_of(model: nn.Module, **how: Any) -> zoopt.ZOOptimizer:
    def chosen(name: str, tensor: torch.Tensor) -> bool:
        return name.endswith("bias") or "norm" in name or name.startswith("0.")

    return zoopt.ZOOptimizer(model, 1e-3, "spsa", engine="inplace", eps=1e-3, params=chosen, **how)


def during_a_probe(model: nn.Module, what: Callable[[], Any]) -> list[Any]:
    """What two probes of a step find; only the first is watched."""
    found: list[Any] = []

    def closure() -> float:
        found.append(what())
        return 0.0

    optimizer_of(model).step(closure)
    assert len(found) == 2
    return found


X = torch.linspace(-1, 1, 30).view(5, 6).bfloat16()


def test_only_the_first_probe_is_watched() -> None:
    model = layers()

    def depth() -> int:
        model(X)
        return len(modes())

    assert during_a_probe(model, depth) == [1, 0]


class Held(nn.Module):
    """Has a parameter in its hands otherwise than by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(6))
        self.held = [self.bias]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.held[0]


def test_a_parameter_that_is_held_elsewhere_is_watched_for_throughout() -> None:
    model = Held().bfloat16()
    found = during_a_probe(model, lambda: (model(X), len(modes())))
    assert [depth for _, depth in found] == [1, 1]
    outputs = [output.float() for output, _ in found]
    assert not torch.equal(*outputs)  # ε is below what bf16 tells apart at 1
    assert not torch.equal(outputs[0].bfloat16(), (X + model.bias).detach())


def test_a_parameter_in_ones_own_hands_is_in_fp32_too() -> None:
    """The objective takes a parameter from outside of the model, beside the model's own use."""
    model = layers()
    weight = model[0].weight

    def closure() -> float:
        model(X)
        return (X.float() * weight.float()).sum().item()

    optimizer = optimizer_of(model)
    assert optimizer.step(closure) is not None
    assert optimizer.estimated is not None
    assert len(set(optimizer.estimated.losses)) == 2


def test_parameters_are_back_afterwards_also_when_the_objective_raises() -> None:
    model = layers()
    before = dict(model.named_parameters())
    optimizer = optimizer_of(model)
    optimizer.step(lambda: model(X).float().sum().item())
    for error in (RuntimeError, KeyboardInterrupt):

        def closure(error: type[BaseException] = error) -> float:
            model(X)
            raise error

        with pytest.raises(error):
            optimizer.step(closure)
        after = dict(model.named_parameters())
        assert list(after) == list(before)
        assert all(after[name] is before[name] for name in before)


def test_a_parameter_that_the_objective_replaces_stays_replaced() -> None:
    model, mine = layers(), nn.Parameter(torch.zeros(6, dtype=torch.bfloat16))

    def closure() -> float:
        model[2].bias = mine
        return model(X).float().sum().item()

    optimizer_of(model).step(closure)
    assert model[2].bias is mine


def test_a_model_looks_as_ever_during_a_probe() -> None:
    model = layers()

    def look() -> None:
        for parameter, before in zip(model.parameters(), parameters, strict=True):
            assert isinstance(parameter, nn.Parameter)
            assert parameter.dtype is torch.bfloat16
            assert parameter.shape == before.shape
            assert parameter.device == before.device
            assert parameter.requires_grad
            assert parameter.data_ptr() == before.data_ptr()
            assert str(before.tolist()) == str(parameter.tolist())
            assert "StandIn" not in repr(parameter)

    parameters = list(model.parameters())
    during_a_probe(model, look)


def test_a_model_can_be_saved_and_copied_during_a_probe() -> None:
    model = layers()

    def keep() -> tuple[dict[str, Tensor], nn.Module]:
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        return torch.load(file, weights_only=True), copy.deepcopy(model)

    for state, copied in during_a_probe(model, keep):
        for name, parameter in copied.named_parameters():
            assert type(parameter) is nn.Parameter
            assert type(state[name]) is Tensor or type(state[name]) is nn.Parameter
            assert state[name].dtype is torch.bfloat16
            assert torch.equal(state[name], parameter)


def test_writing_to_what_was_made_of_a_parameter_leaves_the_parameter() -> None:
    model = layers()
    weight, before = model[0].weight, model[0].weight.detach().clone()

    def write() -> tuple[Tensor, Tensor]:
        view = model[0].weight.view(1, -1) + 1
        view.mul_(2)
        again = view * X
        return again, F.layer_norm(X, (6,), model[0].weight)

    found = during_a_probe(model, write)
    for again, normalized in found:
        assert again.dtype is normalized.dtype is torch.bfloat16
    torch.testing.assert_close(found[0][0], ((before + 1) * 2 * X), rtol=0.02, atol=0.02)
    torch.testing.assert_close(weight, before, rtol=0.02, atol=0.02)


def test_a_use_that_comes_late_is_watched_for() -> None:
    """A parameter that no operation took by its name may yet be taken otherwise."""
    model = Held().bfloat16()
    x = torch.linspace(-1, 1, 30).view(5, 6)
    optimizer = optimizer_of(model)
    optimizer.step(lambda: 0.0)
    optimizer.step(lambda: (x + model.held[0].float()).sum().item())
    assert optimizer.estimated is not None
    assert len(set(optimizer.estimated.losses)) == 2


@torch.no_grad()
def test_vectors_as_matrices_and_under_vmap() -> None:
    model = layers()
    outputs = during_a_probe(
        model,
        lambda: (
            torch.addmm(model[0].bias[:1], X, model[0].weight.view(-1, 1)),
            F.linear(X, model[0].weight.view(1, -1)),
            torch.vmap(lambda row: row * model[0].weight)(X),
        ),
    )
    assert all(output.dtype is torch.bfloat16 for found in outputs for output in found)


@pytest.mark.parametrize("engine", ["inplace", "overlay"])
def test_a_parameter_of_a_subclass_is_watched_for(engine: str) -> None:
    """It has a ``__torch_function__`` of its own."""

    class Weight(nn.Parameter):
        pass

    model = layers()
    model[0].weight = Weight(model[0].weight.detach())
    found: list[Any] = []

    def closure() -> float:
        found.append((model(X), len(modes()), type(model[0].weight)))
        return 0.0

    zoopt.ZOOptimizer(model, 1e-3, "spsa", engine=engine, eps=1e-2).step(closure)
    (first, *there), (second, *afterwards) = found
    assert there == afterwards == [1, Weight]
    assert not torch.equal(first, second)
