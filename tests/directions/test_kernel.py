"""The fused kernel: what z is a function of, and how a sum is added and rounded."""

import ctypes
import functools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoopt
from zoopt import registry, testing
from zoopt.directions.kernel import cpp_build, cpp_launch, eager, fused, generator, round_into
from zoopt.directions.kernel.check import Launch
from zoopt.directions.kernel.fused import add_to_rows
from zoopt.directions.kernel.gaussian import GAUSSIAN
from zoopt.directions.kernel.generator import Unit
from zoopt.directions.kernel.rademacher import RADEMACHER, rademacher_words, signs_of
from zoopt.directions.kernel.sums import Sum
from zoopt.interfaces import Change, Place, Terms
from zoopt.support.memory import peak_bytes

UNITS = [GAUSSIAN, RADEMACHER]
LENGTHS = (1, 15, 16, 17, 511, 512, 513, 1024, 5000)
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
HALVES = [torch.float16, torch.bfloat16]

GOLDEN_GAUSSIAN = [
    -0.3672113,
    0.4606107,
    -0.1167381,
    -2.4987006,
    -1.6361835,
    0.7904788,
    0.6476851,
    -0.4441015,
    1.262448,
    -0.9464619,
]
GOLDEN_RADEMACHER = [1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0]

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
each_kernel = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_half = pytest.mark.parametrize("dtype", HALVES, ids=str)


def add_(
    tensor: Tensor, index: int, terms: Terms, unit: Unit, *, decay: float = 1.0, **how: Any
) -> None:
    fused.add_([Change.of(tensor, index, terms, decay)], unit, **how)


def z(unit: Unit, length: int, seed: int = 1, index: int = 0, **how: Any) -> Tensor:
    made = torch.zeros(length)
    add_(made, index, ((seed, 1.0),), unit, **how)
    return made


def ramp(length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.linspace(-2, 2, length).to(dtype)


def terms_of(number: int) -> tuple[tuple[int, float], ...]:
    return tuple((seed, (-1) ** seed * 0.3 / (1 + seed)) for seed in range(number))


# ---------------------------------------------------------------------------------- z is a function


def test_directions_meet_their_contract(direction_name: str) -> None:
    testing.check_direction(registry.make_direction(direction_name))


@each_unit
def test_z_is_bit_identical_in_repeated_use(unit: Unit) -> None:
    assert torch.equal(z(unit, 5000), z(unit, 5000))


@each_unit
def test_z_is_what_this_kernel_version_gave(unit: Unit) -> None:
    """A log replays only while z(seed) stands; a deliberate change raises KERNEL_VERSION."""
    golden = {
        "gaussian": GOLDEN_GAUSSIAN,
        "rademacher": GOLDEN_RADEMACHER,
    }
    assert fused.KERNEL_VERSION == 3
    made = z(unit, 2000, seed=0x0123456789ABCDEF, index=3)[::200]
    assert made.tolist() == pytest.approx(golden[unit.name], abs=1e-6)


@each_unit
@each_kernel
@pytest.mark.parametrize("length", LENGTHS)
def test_tails_equal_bodies(unit: Unit, length: int, compiled: bool) -> None:
    whole = z(unit, 8192, compiled=compiled)
    assert torch.equal(z(unit, length, compiled=compiled), whole[:length])


@each_unit
@each_kernel
@pytest.mark.parametrize("first", [1, 15, 16, 500, 512, 1024, 1500])
def test_a_piece_equals_that_part_of_the_whole(unit: Unit, first: int, compiled: bool) -> None:
    whole = z(unit, 4096, compiled=compiled)
    for length in (1, 16, 511, 513, 2000):
        piece = z(unit, length, first=first, compiled=compiled)
        assert torch.equal(piece, whole[first : first + length])


def test_blocked_and_flat_rademacher_agree() -> None:
    offsets = torch.arange(3 * generator.BLOCK, dtype=torch.int32) + 7 * generator.BLOCK
    key = torch.tensor([123456789, -987654321], dtype=torch.int32)
    numbers = torch.tensor([[7], [8], [9]], dtype=torch.int32)
    blocked = signs_of(rademacher_words(numbers, key[:, None, None].expand(2, 3, 1)))
    assert torch.equal(blocked.view(-1), RADEMACHER.at(offsets, key))


def test_signs_of_blocks_compiled_equal_eager_ones() -> None:
    numbers = torch.tensor([7, 0, 3, 2**21 - 1, -5], dtype=torch.int32).repeat(40)
    keys = torch.arange(400, dtype=torch.int32).mul(123456789).view(200, 2)
    expected = signs_of(rademacher_words(numbers[:, None], keys.T.unsqueeze(2)))
    torch.set_num_threads(2)
    assert torch.equal(cpp_launch.signs(numbers, keys), expected)


@each_unit
def test_eager_chunks_do_not_show(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = z(unit, 10_000, compiled=False)
    monkeypatch.setattr(eager, "_CHUNK", 1536)
    assert torch.equal(z(unit, 10_000, compiled=False), whole)


@each_unit
def test_thread_count_does_not_show(unit: Unit) -> None:
    one = z(unit, 200_000)
    torch.set_num_threads(2)
    assert torch.equal(z(unit, 200_000), one)


@each_unit
def test_no_global_random_state_is_read_or_written(unit: Unit) -> None:
    def global_states() -> list[Any]:
        numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
        return [torch.get_rng_state().tolist(), random.getstate(), numpy_state]

    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = global_states()
        made.append(z(unit, 1000))
        assert global_states() == before
    assert torch.equal(*made)


# --------------------------------------------------------------------------------------- addressing


@each_unit
def test_segments_have_noise_of_their_own(unit: Unit, small_segments: int) -> None:
    made = z(unit, 3 * small_segments).view(3, small_segments)
    assert all(not torch.equal(made[a], made[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@each_unit
@each_kernel
@pytest.mark.parametrize("first", [1000, 1024, 1030, 2000])
def test_a_piece_across_segments_equals_that_part_of_the_whole(
    unit: Unit, first: int, compiled: bool, small_segments: int
) -> None:
    whole = z(unit, 4 * small_segments, compiled=compiled)
    piece = z(unit, 1700, first=first, compiled=compiled)
    assert torch.equal(piece, whole[first : first + 1700])


@each_unit
def test_offsets_beyond_two_to_the_32_are_addressable(unit: Unit) -> None:
    places = [0, 1 << 30, 1 << 31, 1 << 32, (1 << 32) + (1 << 30), 1 << 40]
    made = [z(unit, 600, first=place) for place in places]
    for number, here in enumerate(made):
        assert here.abs().sum() > 0
        for other in made[:number]:
            assert abs(float(here @ other)) < 5 * 600**0.5


@each_unit
def test_a_run_over_a_segments_end_is_both_parts(unit: Unit) -> None:
    across = z(unit, 1000, first=(1 << 32) - 500)
    assert torch.equal(across[:500], z(unit, 500, first=(1 << 32) - 500))
    assert torch.equal(across[500:], z(unit, 500, first=1 << 32))


@each_unit
@each_dtype
def test_rows_equal_rows_of_the_whole(unit: Unit, dtype: torch.dtype, small_segments: int) -> None:
    matrix, terms = ramp(70 * 48, dtype).view(70, 48), terms_of(3)
    ids = torch.tensor([[0, 69], [21, 22], [42, 0]])
    rows = add_to_rows(matrix[ids], ids, matrix.numel(), 2, terms, unit)
    add_(matrix, 2, terms, unit)
    assert torch.equal(rows, matrix[ids])


# ----------------------------------------------------------------------------------- layouts, types

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "strided": lambda x: torch.zeros(2 * x.shape[0], 3 * x.shape[1], dtype=x.dtype)[::2, ::3],
    "transposed": lambda x: torch.zeros(x.shape[1], x.shape[0], dtype=x.dtype).t(),
    "shifted": lambda x: torch.zeros(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape),
}


@each_unit
@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_does_not_show_and_memory_stays(unit: Unit, dtype: torch.dtype, layout: str) -> None:
    plain = ramp(40 * 30, dtype).view(40, 30)
    laid = LAYOUTS[layout](plain.clone())
    laid.copy_(plain)
    address, stride = laid.data_ptr(), laid.stride()
    add_(plain, 0, terms_of(2), unit, decay=0.9)
    add_(laid, 0, terms_of(2), unit, decay=0.9)
    assert torch.equal(laid, plain)
    assert (laid.data_ptr(), laid.stride()) == (address, stride)


def test_gaps_of_a_strided_tensor_are_not_written() -> None:
    base = torch.zeros(100)
    add_(base[::2], 0, ((1, 1.0),), RADEMACHER)
    assert (base[1::2] == 0).all()
    assert (base[::2] != 0).all()


@each_unit
@each_dtype
def test_scalars_and_empty_tensors(unit: Unit, dtype: torch.dtype) -> None:
    scalar, empty = torch.zeros((), dtype=dtype), torch.zeros(0, 3, dtype=dtype)
    for tensor in (scalar, empty):
        add_(tensor, 0, ((1, 1.0),), unit, decay=0.5)
    assert scalar.item() == z(unit, 1).to(dtype).item()
    assert empty.shape == (0, 3)


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"torch\.int32.*leave quantized"):
        add_(torch.zeros(3, dtype=torch.int32), 0, ((1, 1.0),), RADEMACHER)


@each_unit
def test_an_fp64_sum_has_fp64_precision(unit: Unit) -> None:
    theta = torch.zeros(1000, dtype=torch.float64)
    add_(theta, 0, ((1, 0.1),), unit)
    assert torch.equal(theta, 0.1 * z(unit, 1000).double())


# ----------------------------------------------------------------------------------------- rounding


@each_unit
@each_half
@pytest.mark.parametrize("number", [1, 3, 8, 9, 11])
def test_many_terms_are_rounded_once(unit: Unit, dtype: torch.dtype, number: int) -> None:
    theta, terms = ramp(3000, dtype), terms_of(number)
    exact = theta.float()
    add_(exact, 0, terms, unit, decay=0.75)
    add_(theta, 0, terms, unit, decay=0.75)
    assert torch.equal(theta, exact.to(dtype))


@each_unit
@pytest.mark.parametrize("number", [1, 11])
def test_an_fp32_sum_is_the_fp64_sum_to_rounding(unit: Unit, number: int) -> None:
    theta, terms = ramp(3000), terms_of(number)
    exact = 0.75 * theta.double()
    for seed, c in terms:
        exact += c * z(unit, 3000, seed).double()
    add_(theta, 0, terms, unit, decay=0.75)
    torch.testing.assert_close(theta.double(), exact, rtol=1e-6, atol=2e-7 * (1 + number) ** 0.5)


def neighbours(value: float, dtype: torch.dtype) -> set[float]:
    """The representable numbers at and on either side of a value."""
    nearest = torch.tensor(value, dtype=torch.float64).to(dtype)
    sides = [torch.nextafter(nearest, torch.tensor(s * 1e9, dtype=dtype)) for s in (-1, 1)]
    around = sorted({nearest.item(), *(s.item() for s in sides)})
    below = [a for a in around if a <= value]
    above = [a for a in around if a >= value]
    return {below[-1], above[0]}


VALUES = [0.3, -0.3, 1.0001, -1.9999, 1000.7, 3.1e-5, -3.1e-5, 6.2e-5, 1.3e-6, -1.3e-6, 2e-8, -2e-8]


@each_half
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("way", ["update", "dense"])
def test_stochastic_rounding_is_unbiased_and_goes_to_neighbours(
    dtype: torch.dtype, value: float, way: str
) -> None:
    """2e-8, 1.3e-6 and 3.1e-5 are subnormal in fp16."""
    n = 40_000
    exact = torch.tensor(value, dtype=torch.float32)
    rounded = torch.zeros(n, dtype=dtype)
    if way == "dense":
        round_into.round_into(rounded, exact.expand(n), 0, seed=5)
    else:
        constant = Unit("constant", lambda offsets, key: torch.ones_like(offsets).float())
        add_(rounded, 0, ((5, exact.item()),), constant, stochastic_rounding=True)
    found = set(rounded.double().unique().tolist())
    assert found <= neighbours(exact.item(), dtype)
    spread = rounded.double().std().item() / n**0.5
    # The noise has 13 or 16 bits, so that the mean is exact to the spacing's 2^-13.
    grain = (max(found) - min(found)) * 2.0**-13
    assert abs(rounded.double().mean().item() - exact.item()) <= 5 * spread + grain


@each_half
def test_what_is_representable_is_not_rounded(dtype: torch.dtype) -> None:
    theta = ramp(5000, dtype)
    kept = theta.clone()
    round_into.round_into(theta, kept.float(), 0, seed=1)
    assert torch.equal(theta, kept)


@each_half
def test_stochastic_rounding_keeps_infinity_and_nan(dtype: torch.dtype) -> None:
    values = torch.tensor([float("inf"), -float("inf"), float("nan")])
    theta = torch.zeros(3, dtype=dtype)
    round_into.round_into(theta, values, 0, seed=1)
    assert torch.equal(theta.float().nan_to_num(7), values.nan_to_num(7))


def test_stochastic_rounding_overflows_where_nearest_does() -> None:
    """fp16 ends at 65504, and rounding to nearest at 65520 goes to infinity."""
    theta = torch.zeros(4000, dtype=torch.float16)
    round_into.round_into(theta, torch.full((4000,), 65515.0), 0, seed=1)
    assert (theta == 65504).all()
    round_into.round_into(theta, torch.full((4000,), -65521.0), 0, seed=1)
    assert theta.isneginf().all()


@each_half
def test_an_update_too_small_for_half_precision_arrives_on_average(dtype: torch.dtype) -> None:
    theta, steps = torch.ones(2000, dtype=dtype), 200
    plain = theta.clone()
    for seed in range(steps):
        add_(theta, 0, ((seed, 0.0),), RADEMACHER, decay=1 - 1e-5, stochastic_rounding=True)
        add_(plain, 0, (), RADEMACHER, decay=1 - 1e-5)
    assert torch.equal(plain, torch.ones(2000, dtype=dtype))
    assert theta.double().mean().item() == pytest.approx(1 - 1e-5 * steps, abs=2e-4)


# ----------------------------------------------------------------------------------------- compiled


@each_kernel
@each_dtype
def test_a_negative_zero_stays_one_under_decay(dtype: torch.dtype, compiled: bool) -> None:
    theta = torch.full((600,), -0.0, dtype=dtype)
    add_(theta, 0, (), GAUSSIAN, decay=0.5, compiled=compiled)
    assert theta.signbit().all()


def bits_of(tensor: Tensor) -> Tensor:
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


@each_unit
@each_dtype
@pytest.mark.parametrize("number", [0, 1, 2, 11])
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-7, 6e4])
def test_compiled_equals_eager_bit_for_bit(
    unit: Unit, dtype: torch.dtype, number: int, stochastic: bool, scale: float
) -> None:
    """The scales lead to numbers that are subnormal in fp16, and too large for it."""
    total = Sum(unit, (), 1.0, stochastic and dtype in HALVES, 0)
    assert fused._kernel(total, dtype, torch.device("cpu")) is cpp_launch.launch
    for length in LENGTHS:
        made = []
        for compiled in (False, True):
            theta = (scale * ramp(length)).to(dtype)
            how = {"stochastic_rounding": stochastic, "compiled": compiled}
            terms = [(seed, scale * c) for seed, c in terms_of(number)]
            add_(theta, 4, terms, unit, decay=0.9, **how)
            made.append(bits_of(theta))
        assert torch.equal(*made), f"length {length}"


@each_half
@pytest.mark.parametrize("decay", [1 + 2**-20, 1.37, 1e-3, 3e-6])
def test_every_half_precision_number_is_read_and_written_as_torch_does(
    dtype: torch.dtype, decay: float
) -> None:
    given = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype)
    made, expected = given.clone(), (given.float() * decay).to(dtype)
    add_(made, 0, (), RADEMACHER, decay=decay, compiled=True)
    assert torch.equal(made.isnan(), expected.isnan())
    assert torch.equal(bits_of(made.nan_to_num()), bits_of(expected.nan_to_num()))


@each_half
@pytest.mark.parametrize("first", [0, 7, 1000])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e4])
def test_rounding_compiled_equals_eager_bit_for_bit(
    dtype: torch.dtype, first: int, scale: float, small_segments: int
) -> None:
    values = torch.linspace(-12, 12, 100_003).sinh() * scale
    values[::100] = float("nan")
    found, expected = torch.zeros(2, len(values), dtype=dtype)
    version = found._version
    round_into.round_into(found, values, index=3, seed=9, first=first)
    assert found._version > version
    assert round_into._kernel(dtype, found.device) is cpp_launch.round_at_random
    with zoopt.kernel_mode("eager"):
        round_into.round_into(expected, values, index=3, seed=9, first=first)
    assert torch.equal(found.isnan(), values.isnan())
    assert torch.equal(bits_of(found.nan_to_num()), bits_of(expected.nan_to_num()))


@each_unit
@each_kernel
def test_a_pass_holds_little_beside_the_tensor(unit: Unit, compiled: bool) -> None:
    theta = torch.zeros(1 << 22)
    add_(theta, 0, terms_of(1), unit, compiled=compiled)  # compiles
    _, held = peak_bytes(lambda: add_(theta, 0, terms_of(1), unit, compiled=compiled), theta.device)
    assert held <= theta.nbytes / 4


def test_what_a_compiled_pass_writes_is_known_to_autograd() -> None:
    theta = torch.zeros(100, requires_grad=True)
    before = theta._version
    add_(theta, 0, terms_of(1), RADEMACHER, compiled=True)
    assert theta._version > before


def test_a_compiled_pass_changes_tensors_made_in_inference_mode() -> None:
    with torch.inference_mode():
        theta, plain = torch.zeros(700), torch.zeros(700)
        add_(theta, 0, terms_of(1), RADEMACHER, compiled=True)
        add_(plain, 0, terms_of(1), RADEMACHER, compiled=False)
    assert theta.abs().sum() > 0
    assert torch.equal(theta, plain)


@pytest.mark.parametrize(
    ("direction", "update", "dtype"),
    [
        ("rademacher", "sgd", torch.float32),
        ("lowrank", "sgd", torch.bfloat16),
        ("gaussian", "adam", torch.bfloat16),
    ],
)
def test_eager_mode_asks_for_no_kernel(
    direction: str, update: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stepped(mode: str) -> Tensor:
        theta = torch.linspace(-1, 1, 1200, dtype=dtype).view(30, 40).requires_grad_()
        optimizer = zoopt.ZOOptimizer(
            [theta], 0.1, direction=direction, update=update, engine="copy"
        )
        with zoopt.kernel_mode(mode):
            optimizer.step(lambda: float(theta.float().square().sum()))
        return theta.detach()

    expected = stepped("auto")
    monkeypatch.setattr(cpp_launch, "library", lambda: pytest.fail("it was asked for"))
    assert torch.equal(stepped("eager"), expected)


def test_an_unknown_kernel_mode_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="kernel mode 'fast'; expected 'auto' or 'eager'"),
        zoopt.kernel_mode("fast"),
    ):
        pass


# ---------------------------------------------------------------------------------------- compiling


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that has not built anything, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cpp_launch, "library", functools.cache(cpp_launch.library.__wrapped__))
    return tmp_path / "zoopt"


def assert_eager(made: Tensor) -> None:
    assert torch.equal(made, z(GAUSSIAN, len(made), compiled=False))


@pytest.fixture
def compiler(nothing_built: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a shell script the compiler; ``exec c++ "$@"`` in it is the real one."""
    path = nothing_built.parent / "compiler"

    def set_compiler(script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))

    return set_compiler


def functions_of(library: ctypes.CDLL) -> str:
    listed = ["nm", "-D", library._name]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout


FAULTY = {
    "missing": ("exec no-such-compiler", "no-such-compiler: not found"),
    "fails": ("echo 'one.cpp:1: error: no such option' >&2; echo in all: 1 >&2; exit 1", "option"),
    "is killed": ("kill -9 $$", "was killed by signal 9"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_where_it_cannot_be_compiled_one_warning_says_why(
    fault: str, compiler: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    script, said = FAULTY[fault]
    compiler(script)
    for _ in range(2):
        assert_eager(z(GAUSSIAN, 600, compiled=True))
    (message,) = caplog.messages
    assert "many times slower (the results are the same)" in message
    assert message.endswith(said)


@pytest.mark.parametrize("chosen", [None, "no-such-compiler"])
def test_without_a_compiler_the_warning_says_what_to_install(
    chosen: str | None,
    nothing_built: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PATH", str(nothing_built))
    monkeypatch.setenv("CXX", chosen or "")
    assert_eager(z(GAUSSIAN, 600, compiled=True))
    said = "no-such-compiler: No such file" if chosen else "apt-get install g++"
    assert said in caplog.text


def test_the_library_is_compiled_once_and_kept(
    nothing_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_eager(z(GAUSSIAN, 600, compiled=True))
    (kept,) = nothing_built.iterdir()
    written = kept.stat().st_mtime_ns
    cpp_build.build()
    assert kept.stat().st_mtime_ns == written
    monkeypatch.setattr(cpp_build, "TILE", 8)  # another source
    cpp_build.build()
    assert len(list(nothing_built.iterdir())) == 2


def test_a_damaged_library_is_compiled_again(nothing_built: Path) -> None:
    cpp_build.build()
    (kept,) = nothing_built.iterdir()
    whole = kept.stat().st_size
    kept.unlink()
    kept.write_bytes(b"")
    assert_eager(z(GAUSSIAN, 600, compiled=True))
    assert kept.stat().st_size == whole


def test_the_library_runs_on_threads_that_torch_has(nothing_built: Path) -> None:
    cpp_build.build()
    (kept,) = nothing_built.iterdir()
    assert "GOMP_parallel" in functions_of(ctypes.CDLL(str(kept)))


@pytest.mark.parametrize("option", ["-fopenmp", "-march=native", "-mcpu=native"])
def test_a_compiler_that_lacks_an_option_does_without(
    option: str, compiler: Callable[[str], None], nothing_built: Path
) -> None:
    """Later, when it knows the option, the library with it is compiled."""
    compiler(f'case " $* " in *" {option} "*) exit 1;; esac\nexec c++ "$@"')
    assert_eager(z(GAUSSIAN, 600, compiled=True))
    (kept,) = nothing_built.iterdir()
    assert ("GOMP" in functions_of(ctypes.CDLL(str(kept)))) == (option != "-fopenmp")
    compiler('exec c++ "$@"')
    cpp_build.build()
    used = option == "-fopenmp" or option in next(cpp_build._commands())
    assert len(list(nothing_built.iterdir())) == 1 + used


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_compiler(
    compiler: Callable[[str], None], nothing_built: Path
) -> None:
    """The terminal sends it to all of a process group."""
    noted = nothing_built.parent / "group"
    compiler(f'ps -o pgid= -p $$ >> {noted}\nexec c++ "$@"')
    cpp_build.build()
    groups = {int(line) for line in noted.read_text().split()}
    assert groups
    assert os.getpgid(0) not in groups


def test_the_source_is_read_whatever_the_locale_is(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    build = "from zoopt.directions.kernel import cpp_build; cpp_build.build()"
    done = subprocess.run(
        [sys.executable, "-c", build],
        env=os.environ | ascii_only | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fault", ["a file", "no home"])
def test_a_cache_that_cannot_be_made_is_done_without(
    fault: str,
    nothing_built: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if fault == "a file":
        nothing_built.write_text("")
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError))
    assert_eager(z(GAUSSIAN, 600, compiled=True))
    assert caplog.messages == []


def test_another_dtype_is_left_to_the_reference(caplog: pytest.LogCaptureFixture) -> None:
    total = Sum(GAUSSIAN, (), 1.0, False, 0)
    assert not cpp_launch.usable(total, torch.float8_e4m3fn, torch.device("cpu"))
    assert not cpp_launch._checked.broken


def test_a_broken_kernel_gives_way_with_one_warning(
    faulty_launch: tuple[Launch, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    launch, said = faulty_launch
    monkeypatch.setattr(cpp_launch, "_checked", replace(cpp_launch._checked, passed=set()))
    monkeypatch.setattr(cpp_launch, "launch", launch)
    for _ in range(2):
        assert_eager(z(GAUSSIAN, 600, compiled=True))
    (message,) = caplog.messages
    assert message.endswith(said)
    assert "its C++ kernel failed" in message


def test_running_out_of_memory_is_no_fault_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cpp_launch, "_checked", replace(cpp_launch._checked, passed=set()))
    monkeypatch.setattr(cpp_launch, "launch", launch)
    with pytest.raises(MemoryError):
        z(GAUSSIAN, 600, compiled=True)
    assert not cpp_launch._checked.broken


# ------------------------------------------------------------------------------- a result elsewhere


@each_unit
@each_dtype
@each_kernel
@pytest.mark.parametrize("number", [1, 3, 9])
def test_a_result_written_elsewhere_is_the_one_in_place(
    unit: Unit, dtype: torch.dtype, number: int, compiled: bool
) -> None:
    """Of a long tensor, processed where it is, of short ones, and of one with other strides."""
    given = ramp(300 * 512 + 5, dtype), ramp(700, dtype), ramp(48, dtype).view(6, 8).T
    made = []
    for apart in (False, True):
        tensors = [tensor.clone() for tensor in given]
        results = [torch.full_like(tensor, torch.nan) for tensor in tensors] if apart else tensors
        places = [
            Place(tensor, index, into if apart else None)
            for index, (tensor, into) in enumerate(zip(tensors, results, strict=True))
        ]
        fused.add_(
            [Change(places, terms_of(number), 0.5)],
            unit,
            stochastic_rounding=number == 3,
            compiled=compiled,
        )
        made.append(results)
        if apart:
            assert all(map(torch.equal, tensors, given))
    assert all(map(torch.equal, *made))
