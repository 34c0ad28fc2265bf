"""The Triton kernel, in Triton's interpreter: what it writes is what the reference writes.

The interpreter is chosen when Triton is imported, so these tests run in a process of their own.
"""

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoopt
from zoopt.directions.kernel import check, fused, round_into, triton_check, triton_launch
from zoopt.directions.kernel.gaussian import GAUSSIAN
from zoopt.directions.kernel.generator import Unit
from zoopt.directions.kernel.rademacher import RADEMACHER
from zoopt.directions.kernel.sums import Sum
from zoopt.engines.interception import bias_and_norm as rows
from zoopt.interfaces import Change, Place, Terms

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
inside = pytest.mark.skipif(not INTERPRETED, reason="runs in a process of its own")

SIZES = (1, 17, 700, 4096, 5003)

each_unit = pytest.mark.parametrize("unit", [GAUSSIAN, RADEMACHER], ids=lambda unit: unit.name)
each_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str
)


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_in_the_interpreter() -> None:
    arguments = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        __file__,
    ]
    done = subprocess.run(
        arguments, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_check, "DEVICES", ("cpu",))
    monkeypatch.setattr(rows, "_FEW", 0)
    triton_check.works.cache_clear()
    monkeypatch.setattr(round_into, "_kernel", functools.cache(round_into._kernel.__wrapped__))
    fresh = replace(triton_launch._checked, broken=False, passed=set())
    monkeypatch.setattr(triton_launch, "_checked", fresh)
    if INTERPRETED:
        round_as_a_gpu_does(monkeypatch)


def round_as_a_gpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter (Triton 3.7) cuts bf16 off."""
    import triton.language as tl
    from triton.runtime import interpreter

    cast = interpreter.InterpreterBuilder.cast_impl

    def cast_impl(self: Any, source: Any, wanted: Any) -> Any:
        if source.dtype.scalar == tl.float32 and wanted.scalar == tl.bfloat16:
            rounded = torch.from_numpy(np.array(source.data)).bfloat16().view(torch.uint16)
            return interpreter.TensorHandle(rounded.numpy(), tl.bfloat16)
        with np.errstate(over="ignore"):
            return cast(self, source, wanted)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "cast_impl", cast_impl)


def tensors(dtype: torch.dtype) -> list[Tensor]:
    return [(3 * torch.linspace(-2, 2, size).sinh()).to(dtype) for size in SIZES]


def terms_of(number: int) -> Terms:
    return tuple((seed, (-1) ** seed * 0.3 / (1 + seed)) for seed in range(number))


def both(
    unit: Unit,
    dtype: torch.dtype,
    terms: Terms,
    *,
    decay: float = 0.9,
    apart: bool = False,
    **how: Any,
) -> tuple[list[Tensor], list[Tensor]]:
    """What Triton and the reference make of the same tensors."""
    made = []
    for compiled in (True, False):
        these = tensors(dtype)
        into = [torch.zeros_like(part) if apart else part for part in these]
        places = [
            Place(part, index, there if apart else None)
            for index, (part, there) in enumerate(zip(these, into, strict=True))
        ]
        fused.add_([Change(places, terms, decay)], unit, compiled=compiled, **how)
        if apart:
            assert all(map(torch.equal, these, tensors(dtype)))
        made.append(into)
    return made[0], made[1]


def launched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tensors each launch from here on has."""
    counts: list[int] = []
    launch = triton_launch.launch

    def counting(total: Sum, places: Sequence[Place], first: int = 0) -> None:
        counts.append(len(places))
        launch(total, places, first)

    monkeypatch.setattr(triton_launch, "launch", counting)
    monkeypatch.setattr(check, "_compare", lambda *_: None)
    return counts


def assert_bits_agree(made: tuple[list[Tensor], list[Tensor]]) -> None:
    for mine, theirs in zip(*made, strict=True):
        bits = torch.int32 if mine.dtype == torch.float32 else torch.int16
        assert torch.equal(mine.view(bits), theirs.view(bits))


@inside
@each_unit
@each_dtype
@pytest.mark.parametrize("number", [1, 3, 8, 11])
def test_a_pass_is_one_launch_and_gives_the_same_bits(
    unit: Unit, dtype: torch.dtype, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = launched(monkeypatch)
    assert_bits_agree(both(unit, dtype, terms_of(number)))
    assert counts == [len(SIZES)]


@inside
@each_unit
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("scale", "number"), [(1e-6, 2), (3e4, 2), (1.0, 9)])
def test_stochastic_rounding_gives_the_same_bits(
    unit: Unit, dtype: torch.dtype, scale: float, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scales lead to numbers that are subnormal in fp16, and too large for it."""
    counts = launched(monkeypatch)
    terms = tuple((seed, scale * c) for seed, c in terms_of(number))
    assert_bits_agree(both(unit, dtype, terms, decay=min(scale, 0.9), stochastic_rounding=True))
    assert counts == [len(SIZES)]


@inside
@each_unit
@each_dtype
@pytest.mark.parametrize("first", [0, 7, 1000])
def test_pieces_of_segments_into_other_tensors(
    unit: Unit,
    dtype: torch.dtype,
    first: int,
    small_segments: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = launched(monkeypatch)
    assert_bits_agree(both(unit, dtype, terms_of(2), first=first, apart=True))
    assert counts == [len(SIZES)]


@inside
@pytest.mark.parametrize("terms", [(), ((5, 0.0),)])
@pytest.mark.parametrize("stochastic", [False, True])
def test_decay_alone(terms: Terms, stochastic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = launched(monkeypatch)
    how = {"decay": 0.99, "stochastic_rounding": stochastic}
    assert_bits_agree(both(GAUSSIAN, torch.bfloat16, terms, **how))
    assert counts == [len(SIZES)]


@inside
def test_layouts_empty_tensors_and_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = launched(monkeypatch)
    made = []
    for compiled in (True, False):
        base = torch.linspace(-1, 1, 60 * 40).view(60, 40).contiguous()
        half = torch.linspace(-1, 1, 999).bfloat16()
        wide, apart = torch.linspace(-1, 1, 700).double(), torch.zeros(30, 40).t()
        empty, odd = torch.zeros(0, 3), torch.linspace(-1, 1, 3001)[1:]
        ramp = torch.linspace(-1, 1, 1200).view(40, 30)
        these = [base[::2, ::3], empty, odd, half, wide, ramp]
        places = [
            Place(tensor, index, apart if tensor is ramp else None)
            for index, tensor in enumerate(these)
        ]
        fused.add_([Change(places, terms_of(2))], RADEMACHER, compiled=compiled)
        made.append([base, odd, half, wide, apart])
    assert all(map(torch.equal, *made))
    assert counts == [3, 1]  # not fp64


@inside
def test_a_small_theta_takes_one_launch_unless_kernels_are_eager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = launched(monkeypatch)
    ends = []
    for mode in ("auto", "eager"):
        theta = [torch.linspace(-1, 1, size, requires_grad=True) for size in (7, 600)]
        with zoopt.kernel_mode(mode):
            optimizer = zoopt.ZOOptimizer(theta, 0.1, direction="rademacher")
            optimizer.step(lambda theta=theta: float(sum(t.sum() for t in theta)))
        ends.append(theta)
    assert counts == [2, 2, 2]
    assert all(map(torch.equal, *ends))


@inside
def test_what_is_written_is_known_to_autograd() -> None:
    theta = torch.zeros(100, requires_grad=True)
    before = theta._version
    fused.add_([Change.of(theta, 0, terms_of(1))], RADEMACHER, compiled=True)
    assert theta._version > before


# ------------------------------------------------------------------------------- the check at first


@inside
@each_unit
@pytest.mark.parametrize(
    ("dtype", "stochastic"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.float16, True)],
    ids=str,
)
def test_the_kernel_passes_its_check(unit: Unit, dtype: torch.dtype, stochastic: bool) -> None:
    for number in (2, 9):
        total = Sum(unit, terms_of(number), 1.0, stochastic, 0)
        assert triton_launch.usable(total, dtype, torch.device("cpu"))
    assert len(triton_launch._checked.passed) == 2


def test_a_broken_kernel_gives_way_with_one_warning(
    faulty_launch: tuple[check.Launch, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    launch, said = faulty_launch
    monkeypatch.setattr(triton_launch, "launch", launch)
    with caplog.at_level(logging.WARNING, "zoopt"):
        for number in (1, 2):
            assert_bits_agree(both(RADEMACHER, torch.float32, terms_of(number)))
    (message,) = caplog.messages
    assert message.endswith(said)
    assert "its Triton kernel failed" in message


def test_running_out_of_memory_is_no_fault_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(*_: object) -> None:
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    monkeypatch.setattr(triton_launch, "launch", launch)
    with pytest.raises(RuntimeError, match="out of memory"):
        fused.add_([Change.of(torch.zeros(3), 0, terms_of(1))], RADEMACHER, compiled=True)
    assert not triton_launch._checked.broken


def test_uncompiled_and_other_families_take_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = launched(monkeypatch)
    ones = replace(RADEMACHER, name="ones")
    fused.add_([Change.of(torch.zeros(3), 0, terms_of(1))], ones, compiled=True)
    fused.add_([Change.of(torch.zeros(3), 0, terms_of(1))], RADEMACHER, compiled=False)
    assert counts == []


# ----------------------------------------------------------------------------- rounding at random


@inside
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("first", [0, 7, 1000])
def test_rounding_in_one_launch_gives_the_same_bits(
    dtype: torch.dtype, first: int, small_segments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.linspace(-12, 12, 2500).sinh().mul(1e-3)
    values[::100] = float("nan")
    found, expected = torch.zeros(2, 2500, dtype=dtype)
    version = found._version
    round_into.round_into(found, values, index=3, seed=9, first=first)
    assert found._version > version
    assert round_into._kernel(dtype, found.device) is round_into._in_triton
    monkeypatch.setattr(round_into, "_kernel", lambda *_: round_into._in_torch)
    round_into.round_into(expected, values, index=3, seed=9, first=first)
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


# ----------------------------------------------------------------------------- vectors and the rows

each_half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def activations(dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(width)
    x = torch.randn(3, 7, width).mul(3).add(1).to(dtype)
    return x, 1 + 0.1 * torch.randn(width), torch.randn(width)


@inside
@each_half
@pytest.mark.parametrize("width", [1, 17, 512, 1000])
@torch.no_grad()
def test_a_bias_is_added_as_torch_adds_it(dtype: torch.dtype, width: int) -> None:
    out, _, bias = activations(dtype, width)
    expected = out + bias
    version = out._version
    assert rows.add_bias(out, bias) is out
    assert torch.equal(out, expected.to(dtype))
    assert out._version > version


@inside
@each_half
@pytest.mark.parametrize("width", [2, 17, 512, 1000])
@torch.no_grad()
def test_rows_are_normalized_as_torch_does_it(dtype: torch.dtype, width: int) -> None:
    x, weight, bias = activations(dtype, width)
    expected = torch.nn.functional.layer_norm(x.double(), (width,), weight.double(), bias.double())
    found = rows.layer_norm(x, weight, bias, 1e-5)
    assert found.dtype == dtype
    half_a_step = 0.51 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=half_a_step, atol=1e-5)


@inside
@torch.no_grad()
def test_what_does_not_lie_in_rows_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = activations(torch.bfloat16, 12)
    turned = x.transpose(0, 1)
    expected = rows.layer_norm(turned.contiguous(), weight, bias, 1e-5), turned + bias
    monkeypatch.setattr(triton_check, "kernels", lambda _: pytest.fail("a kernel was asked for"))
    found = rows.layer_norm(turned, weight, bias, 1e-5), rows.add_bias(turned, bias)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("what", ["_add_bias", "_layer_norm"])
@torch.no_grad()
def test_broken_kernels_of_rows_give_way_with_one_warning(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x, weight, bias = activations(torch.bfloat16, 12)
    monkeypatch.setattr(rows, what, lambda out, *_: torch.zeros_like(out))
    with caplog.at_level(logging.WARNING, "zoopt"):
        for _ in range(2):
            added = rows.add_bias(x.clone(), bias)
            normalized = rows.layer_norm(x, weight, bias, 1e-5)
    assert torch.equal(added, (x + bias).bfloat16())
    assert normalized.float().std() > 0.5
    messages = [m for m in caplog.messages if "half-precision models" in m]
    assert len(messages) == (1 if INTERPRETED else 2)
