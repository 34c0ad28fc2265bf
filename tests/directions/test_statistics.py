"""z as random numbers: moments, distributions, and independence of everything that has a key."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import zoopt
from zoopt import testing
from zoopt.directions.kernel.fused import add_
from zoopt.directions.kernel.gaussian import GAUSSIAN
from zoopt.directions.kernel.generator import BLOCK, Unit
from zoopt.directions.kernel.rademacher import RADEMACHER
from zoopt.interfaces import Change, Slot

UNITS = [GAUSSIAN, RADEMACHER]
SEED = 0x243F6A8885A308D3
LENGTH = 1 << 16

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)


def z(unit: Unit, length: int = LENGTH, seed: int = SEED, index: int = 0) -> Tensor:
    made = torch.zeros(length)
    add_([Change.of(made, index, ((seed, 1.0),))], unit)
    return made


def pairs(unit: Unit) -> dict[str, tuple[Tensor, Tensor]]:
    """Streams whose keys differ as little as they can."""
    one = z(unit)
    close = {f"seed ^ 1<<{bit}": z(unit, seed=SEED ^ 1 << bit) for bit in range(64)}
    close |= {f"seed + {step}": z(unit, seed=SEED + step) for step in (1, 2, 3, 512, 1 << 32)}
    close |= {f"tensor {index}": z(unit, index=index) for index in (1, 2, 3, 64, 512)}
    close["seed of tensor 1, index of seed + 1"] = z(unit, seed=SEED + 1, index=1)
    return {name: (one, other) for name, other in close.items()}


def bound(n: int, comparisons: int) -> float:
    """|ρ| of independent streams stays below 4/√n; of many, below what 1 in 10,000 families passes.

    The larger is used, so that a claim of one pair is held to 4/√n exactly.
    """
    return max(4.0, float(stats.norm.isf(1e-4 / (2 * comparisons)))) / math.sqrt(n)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])


def correlations_at_lags(a: Tensor, b: Tensor, lags: int) -> Tensor:
    """ρ of a(t) and b(t + lag) for |lag| ≤ lags, by FFT."""
    n = len(a)
    a, b = ((x.double() - x.double().mean()) / x.double().std() for x in (a, b))
    spectrum = torch.fft.rfft(a, 2 * n).conj() * torch.fft.rfft(b, 2 * n)
    products = torch.fft.irfft(spectrum, 2 * n)
    return torch.cat([products[-lags:], products[: lags + 1]]) / n


@each_unit
def test_close_keys_give_uncorrelated_streams(unit: Unit) -> None:
    streams = pairs(unit)
    worst = max(streams, key=lambda name: abs(correlation(*streams[name])))
    assert abs(correlation(*streams[worst])) < bound(LENGTH, len(streams)), worst


@each_unit
def test_neighbouring_seeds_and_equal_shapes_are_below_four_over_root_n(unit: Unit) -> None:
    one = z(unit, 1_000_000)
    for other in (z(unit, 1_000_000, seed=SEED + 1), z(unit, 1_000_000, index=1)):
        assert abs(correlation(one, other)) < 4 / 1000


@each_unit
def test_close_keys_are_uncorrelated_at_every_lag_up_to_a_block(unit: Unit) -> None:
    streams = pairs(unit)
    limit = bound(LENGTH, len(streams) * (2 * BLOCK + 1))
    for name, (a, b) in streams.items():
        assert correlations_at_lags(a, b, BLOCK).abs().max() < limit, name


@each_unit
def test_a_stream_does_not_repeat_itself_within_a_block(unit: Unit) -> None:
    one = z(unit)
    at_lags = correlations_at_lags(one, one, BLOCK)
    at_lags[BLOCK] = 0.0  # lag 0
    assert at_lags.abs().max() < bound(LENGTH, BLOCK)


def test_close_keys_are_no_permutations_of_each_other() -> None:
    """A hash of (index ^ seed) alone would permute one stream into the next."""
    for name, (a, b) in pairs(GAUSSIAN).items():
        shared = torch.isin(a, b).sum().item()
        assert shared < LENGTH // 100, name  # by chance, of some 2^25 values, about 128 are
        for block in range(0, LENGTH, BLOCK * 16):
            ours, theirs = a[block : block + BLOCK], b[block : block + BLOCK]
            assert not torch.equal(ours.sort().values, theirs.sort().values), name


@each_unit
def test_no_xor_permutation_within_a_block_maps_one_stream_to_another(unit: Unit) -> None:
    """ρ of a(t) and b(t ^ mask) for all masks up to a block, over eight blocks."""
    n = 8 * BLOCK
    places, streams = torch.arange(n), pairs(unit)
    masks = torch.stack([places ^ mask for mask in range(BLOCK)])
    limit = bound(n, len(streams) * BLOCK)
    for name, (a, b) in streams.items():
        rho = (b[:n][masks] @ a[:n]) / (a[:n].norm() * b[:n].norm())
        assert rho.abs().max() < limit, name


def test_rademacher_bits_of_one_word_are_independent() -> None:
    """32 rows of a block share each word: all pairs of rows, over 2,048 blocks."""
    rows = z(RADEMACHER, 2048 * BLOCK).view(-1, 32, 16).transpose(1, 2).reshape(-1, 32)
    rho = torch.corrcoef(rows.T).fill_diagonal_(0.0)
    assert rho.abs().max() < bound(len(rows), 32 * 31 // 2)


@each_unit
def test_coordinates_are_independent_over_seeds(unit: Unit) -> None:
    """Element by element over consecutive seeds: what SPSA averages over."""
    over_seeds = torch.stack([z(unit, 24, seed=seed) for seed in range(4000)])
    rho = torch.corrcoef(over_seeds.T).fill_diagonal_(0.0)
    assert rho.abs().max() < bound(4000, 24 * 23 // 2)
    assert over_seeds.mean(0).abs().max() < bound(4000, 24)


# ---------------------------------------------------------------------------- moments, distribution


def assert_moments_of_normal(sample: Tensor) -> None:
    n, x = len(sample), sample.double()
    assert abs(x.mean()) < 4 / n**0.5
    assert abs((x**2).mean() - 1) < 4 * (2 / n) ** 0.5
    assert abs((x**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 4 * (96 / n) ** 0.5


def assert_moments_of_signs(sample: Tensor) -> None:
    assert sample.unique().tolist() == [-1.0, 1.0]
    assert abs(sample.double().mean()) < 4 / len(sample) ** 0.5


def assert_normal(sample: Tensor) -> None:
    assert stats.kstest(sample.double().numpy(), "norm").pvalue > 1e-3
    n = len(sample)
    for threshold in (3.0, 4.0, 4.5):
        expected = 2 * stats.norm.sf(threshold) * n
        assert abs((sample.abs() > threshold).sum().item() - expected) < 5 * expected**0.5 + 1


def runs_of_signs(sample: Tensor) -> int:
    return int((sample[1:] != sample[:-1]).sum()) + 1


def test_moments_and_distribution_of_gaussian() -> None:
    sample = z(GAUSSIAN, 1_000_000)
    assert_moments_of_normal(sample)
    assert_normal(sample)


def test_moments_and_runs_of_rademacher() -> None:
    sample = z(RADEMACHER, 1_000_000)
    assert_moments_of_signs(sample)
    assert abs(runs_of_signs(sample) - 500_000) < 4 * 500


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, SEED])
def test_ten_million_gaussian_samples(seed: int) -> None:
    sample = z(GAUSSIAN, 10_000_000, seed=seed)
    assert_moments_of_normal(sample)
    assert_normal(sample)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, SEED])
def test_ten_million_rademacher_samples(seed: int) -> None:
    sample = z(RADEMACHER, 10_000_000, seed=seed)
    assert_moments_of_signs(sample)
    assert abs(runs_of_signs(sample) - 5_000_000) < 4 * (1e7 / 4) ** 0.5
    ones = (sample.view(-1, 1000) > 0).sum(dim=1).numpy()
    counts = np.bincount(ones, minlength=1001).cumsum() / len(ones)
    distance = abs(counts - stats.binom.cdf(np.arange(1001), 1000, 0.5)).max()
    assert distance < 1.95 / len(ones) ** 0.5  # Kolmogorov and Smirnov's, at 1 in 1,000


@pytest.mark.slow
def test_ten_million_samples_taken_one_from_each_seed_and_tensor() -> None:
    """100 elements of each of 100,000 (seed, tensor) keys."""
    parts = [
        z(GAUSSIAN, 100, seed=s, index=i) for s, i in itertools.product(range(1000), range(100))
    ]
    sample = torch.cat(parts)
    assert_moments_of_normal(sample)
    assert_normal(sample)


@pytest.mark.slow
@each_unit
def test_all_pairs_of_many_seeds_are_uncorrelated(unit: Unit) -> None:
    streams = torch.stack([z(unit, 8192, seed=seed) for seed in range(1000)])
    rho = torch.corrcoef(streams).fill_diagonal_(0.0)
    assert rho.abs().max() < bound(8192, 1000 * 999 // 2)


def test_gaussian_values_are_the_box_muller_pair_of_their_words() -> None:
    """The polynomials against numpy's double-precision functions."""
    from zoopt.directions.kernel.gaussian import _pair

    generator = torch.Generator().manual_seed(1)
    first, second = (
        torch.randint(-(2**31), 2**31, (200_001,), generator=generator).to(torch.int32)
        for _ in range(2)
    )
    first[:2], second[:4] = torch.tensor([0, 2**31 - 1]), torch.tensor([0, -1, -(2**31), 1 << 30])
    cosine, sine = (bits.view(torch.float32).double().numpy() for bits in _pair(first, second))
    u = (((first & 0x7FFFFFFF).float() + 0.5) * 2.0**-31).double().numpy()
    angle = np.pi / 2 * (second << 1).double().numpy() * 2.0**-31
    radius = np.sqrt(-2 * np.log(u)) * np.where(second.numpy() < 0, -1, 1)
    assert abs(cosine - radius * np.cos(angle)).max() < 2e-6
    assert abs(sine - radius * np.sin(angle)).max() < 2e-6


def test_the_two_values_of_a_gaussian_pair_are_independent() -> None:
    low, high = z(GAUSSIAN, 1 << 20).view(-1, 2, 256).double().unbind(1)
    shapes = {"itself": lambda x: x, "size": torch.abs, "square": torch.square}
    for of_low, of_high in itertools.product(shapes.values(), repeat=2):
        both = torch.stack([of_low(low).flatten(), of_high(high).flatten()])
        assert torch.corrcoef(both)[0, 1].abs() < bound(both.shape[1], 9)
    assert_normal(((low + high) / math.sqrt(2)).float().flatten())
    assert_normal(((low - high) / math.sqrt(2)).float().flatten())


# ------------------------------------------------------------------------------------------- sphere


def sphere_over(*shapes: tuple[int, ...]) -> tuple[zoopt.Sphere, tuple[Slot, ...]]:
    direction, slots = zoopt.Sphere(), testing.make_slots(shapes)
    direction.bind(slots)
    return direction, slots


@pytest.mark.parametrize(
    "shapes", [((3,),), ((2, 3), (), (0,), (5,)), ((1500, 700), (1100,))], ids=str
)
def test_sphere_has_norm_root_d_over_all_tensors(shapes: tuple[tuple[int, ...], ...]) -> None:
    direction, slots = sphere_over(*shapes)
    d = sum(slot.tensor.numel() for slot in slots)
    for seed in (1, 2, SEED):
        norm = testing.materialize(direction, slots, ((seed, 1.0),)).norm().item()
        assert norm == pytest.approx(math.sqrt(d), rel=1e-6)


def test_sphere_is_the_gaussian_scaled() -> None:
    direction, slots = sphere_over((4, 5), (6,))
    sphere = testing.materialize(direction, slots, ((1, 1.0),))
    gaussian = testing.materialize(zoopt.Gaussian(), slots, ((1, 1.0),))
    ratio = sphere / gaussian
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_sphere_has_unit_second_moments() -> None:
    """Their sum over coordinates is exactly d; each is 1 on average."""
    direction, slots = sphere_over((2,), (2,))
    z = torch.stack([testing.materialize(direction, slots, ((s, 1.0),)) for s in range(4000)])
    moments = z.T @ z / len(z)
    assert moments.trace().item() == pytest.approx(4.0, rel=1e-6)
    assert (moments - torch.eye(4)).abs().max() < 5 / len(z) ** 0.5
