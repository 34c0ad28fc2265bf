"""Update rules against torch.optim's, which are fed the same estimates as dense gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import zoopt
from zoopt import registry, testing
from zoopt.interfaces import Change, UpdateRule

LR, DECAY, STEPS = 0.05, 0.2, 12


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((3, 4), (3, 4), (4,))]


def loss(params: list[nn.Parameter]) -> Tensor:
    return sum((p.double() ** 4).sum() + p.double().sum() for p in params)


def momentum_twin(params: list[nn.Parameter]) -> torch.optim.Optimizer:
    """torch keeps Σ βʲ g where zoopt keeps (1 − β) Σ βʲ g."""
    return torch.optim.SGD(params, lr=LR * (1 - 0.8), momentum=0.8)


def projected_twin(params: list[nn.Parameter]) -> torch.optim.Optimizer:
    """torch has no projection, but a hook for one."""
    optimizer = torch.optim.SGD(params, lr=LR)

    def project(*_: object) -> None:
        for parameter in params:
            parameter.detach().clamp_(min=-0.1)

    optimizer.register_step_post_hook(project)
    return optimizer


TWINS: dict[str, tuple[UpdateRule, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]] = {
    "sgd": (zoopt.SGD(), lambda p: torch.optim.SGD(p, lr=LR)),
    "projected": (zoopt.Projected(low=-0.1), projected_twin),
    "momentum": (zoopt.Momentum(beta=0.8), momentum_twin),
    "adam": (
        zoopt.Adam(beta1=0.8, beta2=0.95, zeta=1e-6),
        lambda p: torch.optim.Adam(p, lr=LR, betas=(0.8, 0.95), eps=1e-6),
    ),
}


def test_every_rule_has_a_twin_here() -> None:
    assert sorted(TWINS) == sorted(registry.UPDATES)


def run_beside_twin(
    ours: list[nn.Parameter], optimizer: zoopt.ZOOptimizer, twin: torch.optim.Optimizer
) -> None:
    """Both move by the same estimates, each from where it is."""
    theirs = [p for group in twin.param_groups for p in group["params"]]
    for _ in range(STEPS):
        optimizer.estimate(lambda: loss(ours))
        assert optimizer.estimated is not None
        terms = optimizer.estimated.terms
        for slot, p in zip(optimizer.slots, theirs, strict=True):
            p.grad = torch.zeros_like(p)
            optimizer.direction.add_(Change.of(p.grad, slot.index, terms))
        optimizer.step()
        twin.step()


@pytest.mark.parametrize("name", TWINS)
def test_a_rule_is_torchs_on_the_materialized_estimate(name: str, direction_name: str) -> None:
    rule, make_twin = TWINS[name]
    ours, theirs = parameters(), parameters()
    optimizer = zoopt.ZOOptimizer(
        ours, LR, zoopt.NSPSA(eps=1e-3, n=2, engine="copy"), direction_name, update=rule
    )
    run_beside_twin(ours, optimizer, make_twin(theirs))
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-9, atol=1e-9)


def test_adam_with_decay_is_adamw() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = zoopt.ZOOptimizer(
        ours,
        LR,
        zoopt.SPSA(),
        update=zoopt.Adam(beta1=0.8, beta2=0.95, zeta=1e-6),
        weight_decay=DECAY,
        decay_1d=True,
    )
    twin = torch.optim.AdamW(theirs, LR, betas=(0.8, 0.95), eps=1e-6, weight_decay=DECAY)
    run_beside_twin(ours, optimizer, twin)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-9, atol=1e-9)


def test_decay_is_decoupled_and_once_a_step(update_name: str, engine_name: str) -> None:
    """Whatever the number of seeds: a Trainer plug-in seen in public decays once for each."""
    x = nn.Parameter(torch.ones(2, 3, dtype=torch.float64))
    optimizer = zoopt.ZOOptimizer(
        [x],
        LR,
        zoopt.NSPSA(n=5),
        engine=engine_name,
        update=update_name,
        weight_decay=DECAY,
    )
    for _ in range(3):
        optimizer.step(lambda: 0.0 * x.sum())
    expected = torch.full_like(x, (1 - LR * DECAY) ** 3)
    torch.testing.assert_close(x.detach(), expected.detach(), rtol=1e-9, atol=1e-9)


def test_rules_meet_their_contract(update_name: str, direction_name: str) -> None:
    testing.check_update(
        lambda: registry.make_update(update_name), registry.make_direction(direction_name)
    )


class Coupled(zoopt.SGD):
    """Forgets the decay."""

    def apply(self, step: zoopt.interfaces.UpdateStep) -> None:
        step.decay.update(dict.fromkeys(step.decay, 1.0))  # type: ignore[attr-defined]
        super().apply(step)


class Uphill(zoopt.SGD):
    """Has the sign wrong."""

    def apply(self, step: zoopt.interfaces.UpdateStep) -> None:
        super().apply(zoopt.interfaces.UpdateStep(**{**vars(step), "lr": (-step.lr[0],)}))


@pytest.mark.parametrize(("rule", "message"), [(Coupled, "decoupled"), (Uphill, "not descend")])
def test_the_kit_finds_what_is_wrong(rule: type[UpdateRule], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_update(rule)


STATE_BYTES = {"sgd": 0, "projected": 0, "momentum": 4, "adam": 8}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_is_what_the_docstring_states(update_name: str, dtype: torch.dtype) -> None:
    x = nn.Parameter(torch.ones(10, 10, dtype=dtype))
    optimizer = zoopt.ZOOptimizer([x], update=update_name, engine="overlay")
    optimizer.step(lambda: x.sum().float())
    held = [v for v in optimizer.state[x].values() if isinstance(v, Tensor)]
    assert sum(v.numel() * v.element_size() for v in held) == STATE_BYTES[update_name] * x.numel()
    assert all(not v.requires_grad for v in held)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_updates_below_half_precision_arrive_on_average(
    dtype: torch.dtype, update_name: str
) -> None:
    """θ = 1 and decay 1 − 1e-5 a step, of which rounding to nearest keeps nothing."""
    x = nn.Parameter(torch.ones(100, 100, dtype=dtype))
    optimizer = zoopt.ZOOptimizer(
        [x], 1e-3, engine="overlay", update=update_name, weight_decay=1e-2
    )
    for _ in range(100):
        optimizer.step(lambda: 0.0 * x.float().sum())
    assert x.double().mean().item() == pytest.approx((1 - 1e-5) ** 100, abs=2e-4)
    assert x.unique().numel() > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zoopt.Momentum(beta=1.0), "beta=1.0 must be in"),
        (lambda: zoopt.Adam(beta1=-0.1), "beta1=-0.1 must be in"),
        (lambda: zoopt.Adam(beta2=1.5), "beta2=1.5 must be in"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], UpdateRule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
