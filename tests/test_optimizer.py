"""ZOOptimizer as a torch.optim.Optimizer, and what it promises about the objective."""

import copy
import random
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoopt
from zoopt import registry
from zoopt.interfaces import NonFiniteLossError, StepRecord
from zoopt.optimizer import ZOOptimizer
from zoopt.parameters.groups import each
from zoopt.probes import closure as closures


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))


def objective(model: nn.Module) -> Callable[[], Tensor]:
    inputs = torch.linspace(-1, 1, 30).view(10, 3)
    return lambda: (model(inputs.to(next(model.parameters()).dtype)).float() ** 2).mean()


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def vector(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


# --------------------------------------------------------------------------------- parameter groups


def test_it_is_a_torch_optimizer() -> None:
    optimizer = ZOOptimizer(mlp(), lr=0.5)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]
    assert optimizer.d == 3 * 8 + 8 + 8 + 8 + 8 + 1


@pytest.mark.parametrize(
    "source",
    [
        lambda model: model,
        lambda model: model.parameters(),
        lambda model: list(model.parameters()),
        lambda model: model.named_parameters(),
        lambda model: [{"params": model.parameters()}],
        lambda model: [{"params": list(model.named_parameters())}],
    ],
    ids=["module", "iterator", "list", "pairs", "group", "group of pairs"],
)
def test_every_kind_of_source_gives_the_same_theta(source: Callable[[nn.Module], Any]) -> None:
    model = mlp()
    optimizer = ZOOptimizer(source(model), engine="copy")
    assert [id(slot.tensor) for slot in optimizer.slots] == [id(p) for p in model.parameters()]


def test_groups_have_their_own_lr_eps_and_decay(engine_name: str) -> None:
    x, y = vector(1.0, 2.0), vector(3.0)
    groups = [{"params": [x], "lr": 0.0}, {"params": y, "lr": 0.1, "eps": 0.5, "weight_decay": 0.1}]
    optimizer = ZOOptimizer(groups, lr=7.0, eps=0.1, engine=engine_name)
    assert each(optimizer.param_groups, "eps") == (0.1, 0.5)
    assert each(optimizer.param_groups, "weight_decay") == (0.0, 0.1)
    optimizer.step(lambda: x.sum() + y.sum())
    torch.testing.assert_close(x.detach(), torch.tensor([1.0, 2.0]))
    assert y.item() != 3.0


def test_eps_has_one_home() -> None:
    estimator = zoopt.MeZO(eps=0.25)
    assert ZOOptimizer([vector(1.0)], estimator=estimator).param_groups[0]["eps"] == 0.25
    optimizer = ZOOptimizer([vector(1.0)], estimator=estimator, eps=0.5)
    assert optimizer.param_groups[0]["eps"] == 0.5
    seen: list[float] = []
    x = optimizer.slots[0].tensor
    optimizer.param_groups[0]["eps"] = 0.125
    optimizer.direction = registry.make_direction("rademacher")
    optimizer._assemble()
    optimizer.step(lambda: seen.append(abs(x.item() - 1.0)) or 0.0)
    assert seen == [0.125, 0.125]


@pytest.mark.parametrize("decay_1d", [False, True])
def test_weight_decay_leaves_biases_and_norms_out(
    decay_1d: bool, engine_name: str, update_name: str
) -> None:
    model = mlp()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    ZOOptimizer(
        model, 0.5, engine=engine_name, update=update_name, weight_decay=0.5, decay_1d=decay_1d
    ).step(lambda: float(0 * flat(model).sum() + touch(model)))
    for p in model.parameters():
        expected = 0.75 if p.ndim >= 2 or decay_1d else 1.0
        torch.testing.assert_close(p.detach(), torch.full_like(p, expected), rtol=1e-6, atol=1e-6)


def touch(model: nn.Module) -> Tensor:
    """Zero, from an operation on every parameter (which the overlay engine wants to see)."""
    return sum((0 * p).sum() for p in model.parameters())


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("source", ["module", "tensors"])
def test_a_group_can_be_added(named: bool, source: str, engine_name: str) -> None:
    model, extra = mlp(), vector(1.0, 2.0)
    optimizer = ZOOptimizer(model if source == "module" else model.parameters(), engine=engine_name)
    places = [(slot.index, id(slot.tensor)) for slot in optimizer.slots]
    optimizer.add_param_group({"params": [("extra", extra) if named else extra], "lr": 1.0})
    assert [(slot.index, id(slot.tensor)) for slot in optimizer.slots][:-1] == places
    optimizer.step(lambda: objective(model)() + extra.sum())
    assert not torch.equal(extra, vector(1.0, 2.0))


def test_a_frozen_parameter_in_an_added_group_is_left_alone() -> None:
    frozen = vector(1.0).requires_grad_(False)
    optimizer = ZOOptimizer([("x", vector(1.0))])
    optimizer.add_param_group({"params": [("frozen", frozen), ("free", vector(2.0))]})
    assert [slot.name for slot in optimizer.slots] == ["x", "free"]


@pytest.mark.parametrize(
    ("name", "value"), [("lr", -1.0), ("eps", 0.0), ("eps", -1.0), ("lr", float("nan"))]
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value} must be"):
        ZOOptimizer([vector(1.0)], **{name: value})


# ---------------------------------------------------------------------------------- choosing params


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ("0.*", ["0.weight", "0.bias"]),
        (["*.bias", "2.weight"], ["0.bias", "2.weight", "2.bias", "3.bias"]),
        (lambda name, p: p.ndim == 2, ["0.weight", "3.weight"]),
    ],
    ids=["pattern", "patterns", "predicate"],
)
def test_params_chooses_and_the_rest_is_never_touched(
    params: Any, names: list[str], engine_name: str, update_name: str
) -> None:
    model = mlp()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = ZOOptimizer(
        model, 0.1, engine=engine_name, update=update_name, params=params, weight_decay=0.1
    )
    assert [slot.name for slot in optimizer.slots] == names
    for _ in range(2):
        optimizer.step(objective(model))
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert moved == names


def test_frozen_parameters_are_never_touched(engine_name: str) -> None:
    model = mlp()
    model[0].requires_grad_(False)
    kept = model[0].weight.detach().clone()

    def closure() -> Tensor:
        assert torch.equal(model[0].weight, kept)
        return objective(model)()

    ZOOptimizer(model, 0.1, engine=engine_name, weight_decay=0.5).step(closure)
    assert torch.equal(model[0].weight, kept)


def test_tied_parameters_are_visited_once() -> None:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    tied = nn.Sequential(a, b)
    assert [s.name for s in ZOOptimizer(tied).slots] == ["0.weight", "0.bias", "1.bias"]
    twice = [("one", a.weight), ("two", a.weight)]
    assert [s.name for s in ZOOptimizer(twice).slots] == ["one"]
    groups = [{"params": [a.weight]}, {"params": [b.weight, b.bias]}]
    assert [s.group for s in ZOOptimizer(groups).slots] == [0, 1]


@pytest.mark.parametrize(
    "options", [{"lr": "auto"}, {"eps": "auto"}, {"params": {"*": {"lr": "auto"}}}]
)
def test_rates_to_be_searched_for_are_refused_with_who_searches(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"='auto': .* call zoopt\.tune\(\.\.\., \w+='auto'\)"):
        ZOOptimizer(mlp(), **options)
    with pytest.raises(ValueError, match=r"eps='auto' must be a positive number"):
        zoopt.MeZO(eps="auto")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: torch.zeros(3), TypeError, r"given a tensor.*\[tensor\]"),
        (lambda: [], ValueError, "no parameter to tune.*none given"),
        (lambda: [3], TypeError, "got int; pass the model itself"),
        (lambda: mlp().requires_grad_(False), ValueError, "Frozen parameters have requires_grad=F"),
        (lambda: nn.Linear(2, 2, device="meta"), ValueError, "'weight' is on the meta device"),
        (
            lambda: [torch.zeros(1).expand(3).requires_grad_()],
            ValueError,
            "expanded view.*clone",
        ),
        (lambda: [torch.zeros(3, dtype=torch.int32)], TypeError, "no parameter to tune"),
        (
            lambda: [vector(1.0).to(torch.complex64).detach().requires_grad_()],
            TypeError,
            r"torch\.complex\(",
        ),
        (
            lambda: [vector(1.0).detach().to(torch.float8_e4m3fn).requires_grad_()],
            TypeError,
            "float8_e4m3fn, but zoopt tunes plain floating-point",
        ),
    ],
    ids=["tensor", "empty", "number", "frozen", "meta", "expanded", "integer", "complex", "fp8"],
)
def test_what_cannot_be_tuned_is_refused_helpfully(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ZOOptimizer(make())


def test_a_choice_of_nothing_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"params='\*lora\*' chose none.*0\.weight, 0\.bias"):
        ZOOptimizer(mlp(), params="*lora*")


# -------------------------------------------------------------------------------- estimate and step


def test_estimate_and_a_bare_step_are_a_step(engine_name: str, update_name: str) -> None:
    models = mlp(), mlp()
    whole, halves = (ZOOptimizer(m, 0.1, engine=engine_name, update=update_name) for m in models)
    for _ in range(3):
        value = whole.step(objective(models[0]))
        assert halves.estimate(objective(models[1])) == value
        assert halves.step() is None
    assert torch.equal(flat(models[0]), flat(models[1]))


def test_theta_is_itself_when_settled_between_estimate_and_step(engine_name: str) -> None:
    models = mlp(), mlp()
    ZOOptimizer(models[0], 0.1, engine=engine_name).step(objective(models[0]))
    before = flat(models[1])
    optimizer = ZOOptimizer(models[1], 0.1, engine=engine_name)
    optimizer.estimate(objective(models[1]))
    optimizer.settle()
    torch.testing.assert_close(flat(models[1]), before, rtol=1e-6, atol=1e-7)
    optimizer.step()
    torch.testing.assert_close(flat(models[1]), flat(models[0]), rtol=1e-5, atol=1e-6)


def test_a_bare_step_without_an_estimate_explains_itself() -> None:
    optimizer = ZOOptimizer([vector(1.0)])
    with pytest.raises(RuntimeError, match=r"opt\.estimate\(closure\) and then opt\.step\(\)"):
        optimizer.step()
    optimizer.estimate(lambda: 1.0)
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"backward\(\) is not used"):
        optimizer.step()


def test_step_returns_the_mean_of_the_probes_in_the_closures_sign() -> None:
    x = vector(2.0)
    for maximize in (False, True):
        optimizer = ZOOptimizer([x], lr=0.0, maximize=maximize)
        assert optimizer.step(lambda: x.item() ** 2) == pytest.approx(4.0, abs=1e-4)


def test_maximize_climbs_what_minimize_descends(engine_name: str, update_name: str) -> None:
    models = mlp(), mlp()
    down = ZOOptimizer(models[0], 0.1, engine=engine_name, update=update_name)
    up = ZOOptimizer(models[1], 0.1, engine=engine_name, update=update_name, maximize=True)
    for _ in range(3):
        down.step(objective(models[0]))
        up.step(lambda: -objective(models[1])())
    assert torch.equal(flat(models[0]), flat(models[1]))


@pytest.mark.parametrize(
    "as_number",
    [
        float,
        lambda v: v,
        lambda v: v.reshape(1),
        lambda v: np.float32(v.item()),
        lambda v: v.numpy(),
    ],
    ids=["float", "0-d tensor", "one element", "numpy scalar", "0-d array"],
)
def test_values_of_every_kind_of_number(as_number: Callable[[Tensor], Any]) -> None:
    x = vector(1.0, 2.0)
    optimizer = ZOOptimizer([x], 0.1, estimator="spsa")
    value = optimizer.step(lambda: as_number((x**2).sum()))
    assert value == pytest.approx(5.0, abs=0.1)
    assert isinstance(value, float)


def test_integers_and_booleans_are_numbers() -> None:
    assert ZOOptimizer([vector(1.0)]).step(lambda: 3) == 3.0
    assert ZOOptimizer([vector(1.0)]).step(lambda: True) == 1.0


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (None, "NoneType"),
        (torch.zeros(3), r"Tensor of shape \(3,\)"),
        (torch.zeros(0), r"Tensor of shape \(0,\)"),
        ([1.0], "list"),
        ({"loss": 1.0}, "dict"),
        ("high", "str"),
        (np.zeros(3), "ndarray"),
        (1 + 2j, "complex"),
        (np.complex64(1 + 2j), "complex64"),
        (torch.tensor(1 + 2j), r"Tensor of shape \(\)"),
        (np.ma.masked, "MaskedConstant"),
    ],
    ids=str,
)
def test_what_is_not_one_number_is_refused(value: Any, given: str) -> None:
    x = vector(1.0)
    with pytest.raises(TypeError, match=rf"returned {given}; expected one number.*reduce it"):
        ZOOptimizer([x], estimator="spsa").step(lambda: value)
    assert x.item() == 1.0


def test_an_error_of_the_device_is_passed_on() -> None:
    class Failed(Tensor):
        def __float__(self) -> float:
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        ZOOptimizer([vector(1.0)]).step(lambda: torch.zeros(()).as_subclass(Failed))


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), torch.tensor(float("nan")), 10**400],
    ids=lambda v: str(v)[:5],
)
def test_what_is_not_finite_is_refused(value: Any) -> None:
    with pytest.raises(NonFiniteLossError, match="θ is as it was before the step"):
        ZOOptimizer([vector(1.0)]).step(lambda: value)


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of closures are taken for ones that a GPU has still to compute."""
    monkeypatch.setattr(closures, "_DEVICES", ("cpu",))


def test_the_next_probe_does_not_wait_for_a_number_on_a_gpu(
    engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch)
    told: list[str] = []
    read = closures.finite_number

    def watched(value: Any, where: str) -> float:
        told.append("read")
        return read(value, where)

    monkeypatch.setattr(closures, "finite_number", watched)
    model = mlp()

    def closure() -> Tensor:
        told.append("asked")
        return objective(model)()

    ZOOptimizer(model, 0.1, engine=engine_name).step(closure)
    assert told == ["asked", "asked", "read", "read"]


@pytest.mark.parametrize("maximize", [False, True])
def test_a_number_on_a_gpu_may_lie_where_the_next_one_will(
    maximize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch)
    here, there = mlp(), mlp()
    room = torch.empty(())
    ZOOptimizer(here, 0.1, maximize=maximize).step(lambda: objective(here)().item())
    ZOOptimizer(there, 0.1, maximize=maximize).step(lambda: room.copy_(objective(there)()))
    assert not torch.equal(flat(here), flat(mlp()))
    assert torch.equal(flat(here), flat(there))


def test_what_is_not_finite_on_a_gpu_undoes_the_step(
    engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch)
    model = mlp()
    optimizer = ZOOptimizer(model, 0.1, engine=engine_name)
    with pytest.raises(NonFiniteLossError, match="θ is as it was before the step"):
        optimizer.step(lambda: objective(model)() * float("nan"))
    torch.testing.assert_close(flat(model), flat(mlp()), rtol=0, atol=1e-6)


def test_autograd_records_nothing(engine_name: str, update_name: str) -> None:
    model = mlp()
    optimizer = ZOOptimizer(model, 0.1, engine=engine_name, update=update_name)
    losses: list[Tensor] = []

    def closure() -> Tensor:
        assert not torch.is_grad_enabled()
        losses.append(objective(model)())
        return losses[-1]

    optimizer.step(closure)
    optimizer.step(closure)
    assert all(not loss.requires_grad and loss.grad_fn is None for loss in losses)
    for p in model.parameters():
        assert p.grad is None
        assert p.is_leaf
        assert p.requires_grad
    assert torch.is_grad_enabled()


def test_a_closure_that_calls_backward_is_told_to_return_the_loss(engine_name: str) -> None:
    model = mlp()
    optimizer = ZOOptimizer(model, 0.1, engine=engine_name)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(model)()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match=r"remove \.backward\(\).*return the loss") as raised:
        optimizer.step(closure)
    assert "does not require grad" in str(raised.value.__cause__)
    assert optimizer.steps == 0
    torch.testing.assert_close(flat(model), flat(mlp()), rtol=0, atol=1e-6)
    optimizer.step(objective(model))


def test_a_loss_may_contain_a_derivative(engine_name: str) -> None:
    model = mlp()

    def slope() -> Tensor:
        with torch.enable_grad():
            inputs = torch.linspace(-1, 1, 30).view(10, 3).requires_grad_()
            (derivative,) = torch.autograd.grad(model(inputs).sum(), inputs)
        return (derivative**2).mean()

    before = slope().item()
    optimizer = ZOOptimizer(model, 0.1, "nspsa", engine=engine_name, eps=1e-2)
    for _ in range(50):
        optimizer.step(slope)
    assert slope().item() < 0.5 * before


def test_other_errors_of_a_closure_are_passed_on() -> None:
    def fails() -> float:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match=r"^mine$"):
        ZOOptimizer(mlp()).step(fails)


@pytest.mark.parametrize("start", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cast", ["bfloat16", "half", "float", "double"])
@pytest.mark.parametrize("engine", ["auto", "inplace", "overlay", "copy"])
def test_a_model_may_be_cast_until_the_first_step(
    engine: str, cast: str, start: torch.dtype
) -> None:
    late, early = (mlp().to(start) for _ in range(2))
    optimizer = ZOOptimizer(late, 0.1, engine=engine)
    for model in (late, early):
        getattr(model, cast)()
    expected = ZOOptimizer(early, 0.1, engine=engine)
    for _ in range(2):
        assert optimizer.step(objective(late)) == expected.step(objective(early))
    assert type(optimizer.engine) is type(expected.engine)
    assert torch.equal(flat(late), flat(early))


def test_a_model_that_is_cast_within_a_run_is_refused(engine_name: str) -> None:
    model = mlp()
    optimizer = ZOOptimizer(model, 0.1, engine=engine_name)
    optimizer.step(objective(model))
    model.bfloat16()
    kept = flat(model)
    said = r"'0.weight' was torch.float32 on cpu.*and is torch.bfloat16 on cpu now; create"
    with pytest.raises(ValueError, match=said):
        optimizer.step(objective(model))
    assert torch.equal(flat(model), kept)


def test_a_model_with_other_parameters_is_refused(engine_name: str) -> None:
    model = mlp()
    optimizer = ZOOptimizer(model, 0.1, engine=engine_name)
    model.load_state_dict(mlp().state_dict(), assign=True)
    with pytest.raises(
        ValueError, match=r"parameter '0.weight' of the model was replaced .*assign=True"
    ):
        optimizer.step(objective(model))


def test_it_can_be_mixed_with_backward() -> None:
    model = mlp()
    optimizer = ZOOptimizer(model, 0.1)
    optimizer.step(objective(model))
    objective(model)().backward()
    assert model[0].weight.grad is not None
    optimizer.zero_grad()
    assert model[0].weight.grad is None


# --------------------------------------------------------------------------------------- schedulers


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=10),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, max_lr=0.1, total_steps=10, cycle_momentum=False
        ),
    ],
    ids=["lambda", "cosine", "one cycle"],
)
def test_torchs_schedulers_work_without_warnings(make: Callable[[Any], Any]) -> None:
    x = vector(1.0, 2.0)
    optimizer = ZOOptimizer([x], 0.1)
    twin = torch.optim.SGD([vector(1.0)], 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler, other = make(optimizer), make(twin)
        for _ in range(5):
            optimizer.step(lambda: (x**2).sum())
            twin.step()
            scheduler.step()
            other.step()
    assert optimizer.param_groups[0]["lr"] == twin.param_groups[0]["lr"]


def test_a_step_uses_the_scheduled_lr() -> None:
    x = vector(1.0)
    optimizer = ZOOptimizer([x], 0.1, estimator="spsa")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.0 if t else 1.0)
    optimizer.step(lambda: x.sum())
    scheduler.step()
    then = x.item()
    optimizer.step(lambda: x.sum())
    assert then != 1.0
    assert x.item() == then


def test_step_hooks_run() -> None:
    calls: list[str] = []
    optimizer = ZOOptimizer([vector(1.0)])
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.step(lambda: 1.0)
    assert calls == ["before", "after"]


# -------------------------------------------------------------------------------------- state dicts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_loaded_state_continues_bit_for_bit(
    dtype: torch.dtype, update_name: str, tmp_path: Any
) -> None:
    def make(seed: int = 4) -> tuple[nn.Module, ZOOptimizer]:
        model = mlp().to(dtype)
        return model, ZOOptimizer(model, 0.05, update=update_name, seed=seed, engine="overlay")

    model, whole = make()
    for _ in range(6):
        whole.step(objective(model))
    first, before = make()
    for _ in range(3):
        before.step(objective(first))
    torch.save({"model": first.state_dict(), "optimizer": before.state_dict()}, tmp_path / "s.pt")
    saved = torch.load(tmp_path / "s.pt")
    second, after = make(seed=99)
    second.load_state_dict(saved["model"])
    after.load_state_dict(saved["optimizer"])
    for state in after.state.values():
        assert all(v.dtype == torch.float32 for v in state.values() if isinstance(v, Tensor))
    for _ in range(3):
        after.step(objective(second))
    assert torch.equal(flat(second), flat(model))


def test_loading_shares_no_memory_with_what_was_loaded() -> None:
    model = mlp()
    optimizer = ZOOptimizer(model, 0.1, update="momentum")
    optimizer.step(objective(model))
    saved = optimizer.state_dict()
    kept = {k: v["exp_avg"].clone() for k, v in saved["state"].items()}
    other = ZOOptimizer(mlp(), 0.1, update="momentum")
    other.load_state_dict(saved)
    other.step(objective(other.model))
    assert all(torch.equal(saved["state"][k]["exp_avg"], kept[k]) for k in kept)


def test_settings_of_groups_are_restored() -> None:
    optimizer = ZOOptimizer(mlp(), lr=0.25, eps=0.5, weight_decay=0.125)
    other = ZOOptimizer(mlp(), lr=1.0)
    other.load_state_dict(optimizer.state_dict())
    assert [each(other.param_groups, n) for n in ("lr", "eps", "weight_decay")] == [
        (0.25,),
        (0.5,),
        (0.125,),
    ]


def test_loading_says_which_of_two_settings_counts(caplog: pytest.LogCaptureFixture) -> None:
    saved = ZOOptimizer(mlp(), estimator=zoopt.MeZO(eps=0.5)).state_dict()
    ZOOptimizer(mlp(), lr=1.0, estimator=zoopt.MeZO(eps=0.5)).load_state_dict(saved)
    assert not caplog.text, "lr is a schedule's"
    other = ZOOptimizer(mlp(), estimator=zoopt.NSPSA(eps=0.25, n=4), update="momentum")
    other.load_state_dict(saved)
    (said,) = caplog.messages
    assert "eps is 0.5, the saved run's, not 0.25" in said
    assert "n is 4, as given; the saved run had 1" in said
    assert "update is 'momentum', as given; the saved run had 'sgd'" in said
    assert other.param_groups[0]["eps"] == 0.5
    assert other.estimator.n == 4
    del saved["zoopt"]["settings"]  # as of an earlier version
    caplog.clear()
    ZOOptimizer(mlp(), estimator=zoopt.NSPSA(eps=0.5, n=4)).load_state_dict(saved)
    assert not caplog.text


def test_foreign_states_are_refused() -> None:
    model = mlp()
    optimizer = ZOOptimizer(model)
    with pytest.raises(ValueError, match=r"no 'zoopt' entry .*\['param_groups', 'state'\]"):
        optimizer.load_state_dict(torch.optim.SGD(model.parameters()).state_dict())
    with pytest.raises(ValueError, match=r"saved with direction 'rademacher', but .*'gaussian'"):
        optimizer.load_state_dict(ZOOptimizer(model, direction="rademacher").state_dict())
    future = optimizer.state_dict()
    future["zoopt"]["kernel"] = 999
    with pytest.raises(ValueError, match="saved with kernel 999"):
        optimizer.load_state_dict(future)


def test_a_state_dict_has_the_direction_of_tuning_and_the_bound(caplog: Any) -> None:
    saved = ZOOptimizer(mlp(), maximize=True)
    saved.clip = 0.5
    optimizer = ZOOptimizer(mlp())
    optimizer.load_state_dict(saved.state_dict())
    assert optimizer.clip == 0.5
    optimizer.load_state_dict(ZOOptimizer(mlp()).state_dict())
    assert optimizer.clip == 0.5, "a state without a bound leaves it"
    assert "maximize is False, as given; the saved run had True" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_value_in_half_precision_is_warned_of(dtype: torch.dtype) -> None:
    with pytest.warns(UserWarning, match=f"value is {dtype}.*fp32"):
        ZOOptimizer(mlp()).step(lambda: torch.ones((), dtype=dtype))


def test_an_async_objective_is_told_to_be_awaited() -> None:
    async def value() -> float:
        return 1.0

    with pytest.raises(TypeError, match="async function"):
        ZOOptimizer(mlp()).step(value)


def test_an_array_of_one_is_a_number() -> None:
    assert ZOOptimizer(mlp()).step(lambda: np.full(1, 2.0)) == 2.0


def test_it_is_not_copied_without_its_model() -> None:
    with pytest.raises(TypeError, match="load_state_dict"):
        copy.deepcopy(ZOOptimizer(mlp()))


def test_a_state_dict_settles_theta() -> None:
    models = mlp(), mlp()
    ZOOptimizer(models[0], 0.1).step(objective(models[0]))
    optimizer = ZOOptimizer(models[1], 0.1)
    with optimizer.chain():
        optimizer.step(objective(models[1]))
        optimizer.state_dict()
        assert torch.equal(flat(models[0]), flat(models[1]))


def test_loading_drops_a_pending_estimate(engine_name: str) -> None:
    model = mlp()
    optimizer = ZOOptimizer(model, engine=engine_name)
    saved = optimizer.state_dict()
    optimizer.estimate(objective(model))
    optimizer.load_state_dict(saved)
    with pytest.raises(RuntimeError, match="pending"):
        optimizer.step()


# ----------------------------------------------------------------------------- modes and randomness


def test_probes_run_in_eval_mode_and_each_module_gets_its_own_mode_back(engine_name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model[2].eval()
    modes = [m.training for m in model.modules()]
    inputs = torch.randn(6, 3)

    def closure() -> Tensor:
        assert not any(m.training for m in model.modules())
        once, again = model(inputs), model(inputs)
        assert torch.equal(once, again)
        return once.sum()

    optimizer = ZOOptimizer(model, 0.1, engine=engine_name)
    optimizer.step(closure)
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert [m.training for m in model.modules()] == modes


def test_buffers_are_put_back_even_where_the_objective_trains(engine_name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: b.clone() for name, b in model.named_buffers()}
    inputs = torch.randn(6, 3)

    def closure() -> Tensor:
        return model.train()(inputs).square().sum()

    ZOOptimizer(model, 0.1, engine=engine_name).step(closure)
    assert before
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


class Counting(nn.Module):
    """What it gives depends on how often it was asked."""

    def __init__(self, count: Callable[[Tensor], Tensor], elements: int = 1) -> None:
        super().__init__()
        self.weight, self.count = nn.Parameter(torch.ones(3)), count
        self.register_buffer("asked", torch.zeros(elements, dtype=torch.int64))

    def forward(self) -> Tensor:
        self.asked = self.count(self.asked)
        return (self.weight * self.asked[0]).sum()


@pytest.mark.parametrize("count", [lambda n: n + 1, lambda n: n.add_(1)], ids=["anew", "in place"])
def test_every_probe_finds_the_same_buffers(
    engine_name: str, count: Callable[[Tensor], Tensor]
) -> None:
    model = Counting(count)
    buffer = model.asked
    optimizer = ZOOptimizer(model, 0.0, "spsa", engine=engine_name, eps=1e-3)
    for _ in range(2):
        optimizer.step(model)
        assert optimizer.estimated.losses == pytest.approx([3.0, 3.0], abs=0.01)
        assert model.asked is buffer
        assert buffer.item() == 0


def test_packed_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    many = 1 << 17
    copied: list[int] = []
    clone = Tensor.clone

    def watched(tensor: Tensor, **how: Any) -> Tensor:
        copied.append(tensor.numel())
        return clone(tensor, **how)

    monkeypatch.setattr(Tensor, "clone", watched)
    model = Counting(lambda n: n, many)
    ZOOptimizer(model, engine="inplace").step(model)
    assert many not in copied
    model.count = lambda n: n.add_(1)
    with pytest.warns(UserWarning, match="writes to buffer 'asked' of a Counting, which is 1 MB"):
        ZOOptimizer(model, engine="inplace").step(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("engine", ["inplace", "copy"])
def test_a_scripted_model_is_tuned(engine: str) -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()))
    before = {name: b.clone() for name, b in model.named_buffers()}
    optimizer = ZOOptimizer(model, 0.1, engine=engine)
    first, *_, last = (optimizer.step(lambda: model(torch.ones(2, 3)).sum()) for _ in range(9))
    assert last < first
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())
    assert all(module.training for module in model.modules())


def test_buffers_that_cannot_be_written_to_are_left_alone() -> None:
    model = mlp()
    model.register_buffer("expanded", torch.zeros(1).expand(5))
    with torch.inference_mode():
        model.register_buffer("inferred", torch.zeros(3))
    ZOOptimizer(model).step(objective(model))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_record_that_cannot_be_written_undoes_the_step(
    engine_name: str, error: type[BaseException]
) -> None:
    model = mlp()
    optimizer = ZOOptimizer(model, 0.1, engine=engine_name)

    def fail(record: StepRecord) -> None:
        raise error

    optimizer.recorder = fail
    with pytest.raises(error):
        optimizer.step(objective(model))
    torch.testing.assert_close(flat(model), flat(mlp()), rtol=0, atol=1e-6)
    assert optimizer.steps == 0


def test_modes_are_the_callers_with_bare_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Dropout())
    ZOOptimizer(model.parameters()).step(lambda: float(model.training))
    assert model.training


def test_all_probes_see_the_same_random_state_and_it_advances_once(engine_name: str) -> None:
    x = vector(1.0)
    draws: list[tuple[float, float, float]] = []

    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), random.random(), float(np.random.rand())  # noqa: NPY002

    def closure() -> Tensor:
        draws.append(draw())
        return x.sum()

    optimizer = ZOOptimizer([x], estimator=zoopt.NSPSA(n=3), engine=engine_name)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    optimizer.step(closure)
    optimizer.step(closure)
    assert len(set(draws[:6])) == 1
    assert len(set(draws[6:])) == 1
    assert draws[0] != draws[6]
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002
    assert [draw(), draw()] == [draws[0], draws[6]]


# ------------------------------------------------------------------------------------------- repeat


@pytest.mark.parametrize("option", ["lr", "eps", "weight_decay"])
def test_an_option_changed_before_the_update_is_in_the_record(option: str) -> None:
    """lr and decay are those of the update, ε that of the probes."""

    def make() -> tuple[nn.Module, ZOOptimizer]:
        model = mlp()
        groups = [{"params": [p]} for p in model.parameters()]
        return model, ZOOptimizer(groups, 0.05, engine="copy", weight_decay=0.1)

    model, optimizer = make()
    records: list[StepRecord] = []
    optimizer.recorder = records.append
    for _ in range(3):
        optimizer.estimate(objective(model))
        optimizer.param_groups[1][option] *= 0.5
        optimizer.step()
    again, repeater = make()
    for record in records:
        repeater.repeat(record)
    assert torch.equal(flat(again), flat(model))


def test_tensors_that_no_probe_has_moved_are_not_moved() -> None:
    model = mlp()
    optimizer = ZOOptimizer(model[0].parameters(), 1.0)
    optimizer.estimate(objective(model))
    optimizer.add_param_group({"params": list(model[3].parameters())})
    with pytest.raises(RuntimeError, match="pending estimate, and none is pending"):
        optimizer.step()


@pytest.mark.parametrize("chained", [False, True], ids=["unchained", "chained"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_repeating_the_records_gives_theta_bit_for_bit(
    engine_name: str, update_name: str, chained: bool, dtype: torch.dtype
) -> None:
    def make() -> tuple[nn.Module, ZOOptimizer]:
        model = mlp().to(dtype)
        return model, ZOOptimizer(
            model,
            0.05,
            zoopt.NSPSA(eps=1e-2, n=2),
            engine=engine_name,
            update=update_name,
            weight_decay=0.1,
            maximize=True,
        )

    model, optimizer = make()
    records: list[StepRecord] = []
    optimizer.recorder = records.append
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    for _ in range(2):
        with optimizer.chain() if chained else torch.no_grad():
            for _ in range(3):
                optimizer.step(objective(model))
                scheduler.step()
    assert [record.chained for record in records].count(True) == (
        4 if chained and engine_name == "inplace" and update_name == "sgd" else 0
    )
    replica, repeater = make()
    with repeater.chain():
        for record in records:
            repeater.repeat(record)
    assert torch.equal(flat(replica), flat(model))
    assert repeater.steps == optimizer.steps == 6


@pytest.mark.parametrize("engine", ["copy", "overlay"])
def test_a_step_that_failed_in_between_leaves_no_trace_in_the_log(engine: str) -> None:
    """In place it leaves the rounding of its restoration in θ, which no record tells of."""
    model, replica = mlp(), mlp()
    optimizer = ZOOptimizer(model, 0.05, engine=engine)
    repeater = ZOOptimizer(replica, 0.05, engine=engine)
    optimizer.recorder = repeater.repeat
    optimizer.step(objective(model))
    with pytest.raises(NonFiniteLossError):
        optimizer.step(lambda: objective(model)() * float("nan"))
    optimizer.step(objective(model))
    assert torch.equal(flat(replica), flat(model))


def test_records_say_what_a_step_did() -> None:
    records: list[StepRecord] = []
    x = vector(2.0)
    optimizer = ZOOptimizer([x], 0.5, zoopt.MeZO(eps=0.25), weight_decay=0.125, maximize=True)
    optimizer.recorder = records.append
    optimizer.step(lambda: x.item())
    (record,) = records
    assert (record.step, record.lr, record.eps, record.weight_decay) == (
        0,
        (0.5,),
        (0.25,),
        (0.125,),
    )
    assert sum(record.losses) == pytest.approx(-4.0)


def test_a_record_is_written_before_theta_moves() -> None:
    x = vector(1.0)
    optimizer = ZOOptimizer([x], 0.5, estimator="spsa")
    seen: list[float] = []
    optimizer.recorder = lambda record: seen.append(x.item())
    optimizer.step(lambda: x.sum())
    assert seen == [1.0]
    assert x.item() != 1.0


def test_a_record_out_of_order_is_refused() -> None:
    records: list[StepRecord] = []
    optimizer = ZOOptimizer([vector(1.0)])
    optimizer.recorder = records.append
    optimizer.step(lambda: 1.0)
    with pytest.raises(ValueError, match=re.escape("of step 0; expected step 1")):
        optimizer.repeat(records[0])


def test_a_record_of_another_run_is_refused() -> None:
    records: list[StepRecord] = []
    optimizer = ZOOptimizer([vector(1.0)], seed=1)
    optimizer.recorder = records.append
    optimizer.step(lambda: 1.0)
    with pytest.raises(ValueError, match="seed"):
        ZOOptimizer([vector(1.0)], seed=2).repeat(records[0])


# ------------------------------------------------------------------------------------- it optimizes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_quadratic_is_minimized(
    engine_name: str, direction_name: str, update_name: str, dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and engine_name == "inplace":
        pytest.skip("in place drifts in half precision, and the optimizer says so")
    x = nn.Parameter(torch.full((8,), 2.0, dtype=dtype))
    lr = {"sgd": 0.03, "momentum": 0.02, "adam": 0.05}.get(update_name, 0.03)
    optimizer = ZOOptimizer(
        [x], lr, zoopt.NSPSA(eps=0.05), direction_name, engine_name, update=update_name
    )
    for _ in range(120):
        optimizer.step(lambda: (x.float() ** 2).sum())
    assert (x.float() ** 2).sum().item() < 0.05 * 32


def test_in_place_in_half_precision_warns_and_names_the_parameter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = mlp().to(torch.bfloat16)
    ZOOptimizer(model, engine="inplace")
    assert "0.weight" in caplog.text
    assert "use engine='overlay' or 'copy'" in caplog.text
