"""The precision report against a table made with numpy, of weights like those of a transformer."""

import numpy as np
import pytest
import torch
from torch import nn

import zoopt

BF16, FP16 = torch.bfloat16, torch.float16
SIZE = 1 << 17


def matrix(dtype: torch.dtype) -> nn.ParameterDict:
    return nn.ParameterDict({"w": (0.02 * torch.randn(SIZE // 256, 256)).to(dtype)})


def norm(dtype: torch.dtype) -> nn.ParameterDict:
    return nn.ParameterDict({"w": torch.ones(SIZE).to(dtype)})


def measured(model: nn.Module, **options: float) -> zoopt.precision.TensorPrecision:
    (found,) = zoopt.precision_report(model, **options).tensors
    return found


@pytest.mark.parametrize(
    ("make", "dtype", "unchanged", "cosine"),
    [(matrix, BF16, 0.036, 1.0), (norm, FP16, 0.28, 0.976), (norm, BF16, 0.975, 0.37)],
)
def test_what_a_probe_changes(make, dtype, unchanged, cosine):
    found = measured(make(dtype), eps=1e-3)
    assert found.unchanged == pytest.approx(unchanged, abs=0.01)
    assert found.cosine == pytest.approx(cosine, abs=0.01)


@pytest.mark.parametrize(
    ("dtype", "lr", "swallowed"),
    [
        (FP16, 1e-6, 0.91),
        (FP16, 3e-5, 0.146),
        (FP16, 3e-4, 0.015),
        (BF16, 1e-6, 0.988),
        (BF16, 3e-5, 0.68),
        (BF16, 3e-4, 0.12),
    ],
)
def test_what_an_update_loses(dtype, lr, swallowed):
    found = measured(matrix(dtype), lr=lr)
    assert found.swallowed == pytest.approx(swallowed, abs=0.01)
    assert found.kept == pytest.approx(1.0, abs=1e-3)
    assert measured(norm(dtype), lr=3e-5).swallowed == 1.0


def test_what_is_kept_is_the_mean_of_stochastic_rounding():
    """As the optimizer does it, over many updates from the same weights."""
    model = nn.ParameterDict({"w": torch.full((64, 64), 0.02, dtype=BF16)})
    total = torch.zeros(64, 64)
    for seed in range(200):
        theta = nn.Parameter(model["w"].detach().clone())
        optimizer = zoopt.ZOOptimizer([theta], 1e-5, "spsa", seed=seed, direction="rademacher")
        values = iter([2e-3, 0.0])  # of a projected gradient of 1
        optimizer.step(lambda theta=theta, values=values: float(theta.sum()) * 0 + next(values))
        (estimate,) = optimizer.estimated.coefficients
        z = torch.zeros(64, 64)
        term = (optimizer.estimated.seeds[0], -1e-5 * estimate)
        optimizer.direction.add_(zoopt.interfaces.Change.of(z, 0, (term,)))
        total += (theta.detach().float() - model["w"].detach().float()) * z.sign()
    assert total.mean().item() / 200 == pytest.approx(1e-5, rel=0.05)


@pytest.mark.parametrize(
    ("weights", "options", "advice"),
    [
        (matrix(torch.float32), {}, "nothing"),
        (norm(torch.float32), {"eps": 1e-8}, "raise eps to 1e-07"),
        (norm(torch.float32), {"lr": 1e-9}, "raise lr: its updates are below the resolution"),
        (norm(BF16), {}, "nothing: zoopt perturbs and updates it in fp32"),
        (matrix(BF16), {"eps": 1e-5}, "raise eps to 2e-04 or load it in fp32"),
        (matrix(BF16), {}, "nothing: zoopt rounds updates stochastically"),
        (matrix(FP16), {"lr": 1e-4}, "nothing"),
    ],
)
def test_what_to_do(weights, options, advice):
    assert measured(weights, **options).advice.startswith(advice)


def test_raising_eps_as_told_is_enough():
    model = matrix(BF16)
    eps = float(measured(model, eps=1e-5).advice.split()[3])
    assert measured(model, eps=eps).advice == measured(model).advice


def test_nothing_is_written_and_frozen_tensors_are_left_out():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).to(BF16)
    model[0].bias.requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    report = zoopt.precision_report(model, params=["0.*", "1.weight"])
    assert [tensor.name for tensor in report.tensors] == ["0.weight", "1.weight"]
    assert all(map(torch.equal, model.parameters(), before))


def test_the_table_has_a_line_for_each_kind():
    layers = [nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64)) for _ in range(5)]
    model = nn.Sequential(*layers).to(BF16)
    report = zoopt.precision_report(model, params=["*.weight"])
    first, header, *lines = str(report).splitlines()
    assert first == "perturbed by 0.001 z, updated by 1e-06 z"
    assert header.split()[:2] == ["tensors", "dtype"]
    assert [line.split()[:3] for line in lines] == [
        ["5", "matrices", "bfloat16"],
        ["5", "vectors", "bfloat16"],
    ]
    share = report.frame.query("vector")["unchanged"].mean()
    assert lines[1].split()[3] == f"{share:.1%}"
    assert len(report.frame) == 10


@pytest.mark.parametrize("name", ["eps", "lr", "projected_gradient"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_scales_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name}=.* must be a positive number"):
        zoopt.precision_report(nn.Linear(2, 2), **{name: value})
