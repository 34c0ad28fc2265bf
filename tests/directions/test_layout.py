"""Tensors together in few launches: what each gets is what it would get alone."""

from collections.abc import Sequence
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from zoopt.directions.gaussian import GAUSSIAN
from zoopt.directions.kernel import compilation, fused, generator, layout, pool, sources, sums
from zoopt.directions.kernel.generator import BLOCK, Unit
from zoopt.directions.rademacher import RADEMACHER
from zoopt.interfaces import Change, Place, Terms

TERMS: Terms = ((1, 0.5), (2, -0.25))
SIZES = (1, 700, 5 * BLOCK, 40 * BLOCK + 3, 3, 8 * BLOCK, 64 * BLOCK)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of piece, in several batches, at sizes that a test can afford."""
    monkeypatch.setattr(layout, "DIRECT", 4)
    monkeypatch.setattr(pool, "POOL", 4)
    monkeypatch.setattr(sums, "_WORDS", 16 * 16)
    monkeypatch.setattr(sums, "_WIDE_BATCH", 5)


def tensors(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.linspace(-1, 1, size).to(dtype) for size in SIZES]


def together(these: Sequence[Tensor], terms: Terms = TERMS) -> Change:
    return Change([Place(tensor, index) for index, tensor in enumerate(these)], terms, 0.9)


def one_by_one(these: Sequence[Tensor], terms: Terms = TERMS) -> list[Change]:
    return [Change.of(tensor, index, terms, 0.9) for index, tensor in enumerate(these)]


@pytest.mark.parametrize("unit", [GAUSSIAN, RADEMACHER], ids=lambda unit: unit.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("number", [1, 2, 11])
@pytest.mark.parametrize("stochastic", [False, True])
def test_together_equals_one_by_one(
    unit: Unit, dtype: torch.dtype, number: int, stochastic: bool
) -> None:
    terms = tuple((seed, 0.3 / (1 + seed)) for seed in range(number))
    many, alone = tensors(dtype), tensors(dtype)
    fused.add_([together(many, terms)], unit, stochastic_rounding=stochastic)
    fused.add_(one_by_one(alone, terms), unit, stochastic_rounding=stochastic)
    assert all(torch.equal(a, b) for a, b in zip(many, alone, strict=True))


def test_segments_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "SEGMENT", 4 * BLOCK)
    many, alone = tensors(), tensors()
    fused.add_([together(many)], RADEMACHER)
    monkeypatch.setattr(layout, "DIRECT", 1 << 30)
    fused.add_(one_by_one(alone), RADEMACHER)
    assert all(torch.equal(a, b) for a, b in zip(many, alone, strict=True))


def test_places_may_differ_in_dtype_and_layout() -> None:
    def mixed() -> list[Tensor]:
        half, double = (torch.ones(700, dtype=d) for d in (torch.bfloat16, torch.float64))
        return [torch.ones(700), half, torch.ones(30, 40).t(), double, torch.ones(0)]

    many, alone = mixed(), mixed()
    fused.add_([together(many)], GAUSSIAN)
    fused.add_(one_by_one(alone), GAUSSIAN)
    assert all(torch.equal(a, b) for a, b in zip(many, alone, strict=True))
    assert many[2].stride() == (1, 40)


def test_changes_may_differ_in_terms_and_decay() -> None:
    theta = [torch.ones(3) for _ in range(4)]
    fused.add_(
        [
            Change.of(theta[0], 0, TERMS[:1]),
            Change.of(theta[1], 0, TERMS[:1], decay=0.5),
            Change.of(theta[2], 0, (), decay=0.5),
            Change.of(theta[3], 0, ()),
        ],
        RADEMACHER,
    )
    assert torch.equal(theta[0] - theta[1], torch.full((3,), 0.5))
    assert theta[2].tolist() == [0.5] * 3
    assert theta[3].tolist() == [1.0] * 3


def test_nothing_is_changed_where_one_of_them_cannot_be() -> None:
    fine = torch.ones(5)
    with pytest.raises(TypeError, match=r"torch\.int64"):
        fused.add_(one_by_one([fine, torch.ones(5).long()]), GAUSSIAN)
    assert fine.tolist() == [1.0] * 5


def test_runs_and_pools_cover_every_element_once_and_keep_their_limits() -> None:
    flats = tensors()
    runs, others = layout.laid_out([Place(flat, index) for index, flat in enumerate(flats)], 0)
    batches, groups = list(layout.batches(runs, most=16)), list(pool.in_pools(others))
    assert len(batches) > 2
    assert len(groups) == 2
    for batch in batches:
        assert sum(piece.blocks for piece in batch.pieces) == batch.rows.count <= 16
        for _, blocks, _ in batch.runs():
            blocks.add_(100.0)
    for pieces in groups:
        assert sum(piece.blocks for piece in pieces) <= 4
        with pool.pooled(pieces, torch.float32, keep=True) as gathered:
            gathered.blocks.add_(100.0)
    for flat, plain in zip(flats, tensors(), strict=True):
        assert torch.equal(flat, plain + 100.0)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.undo()
    monkeypatch.setattr(pool, "_idle", {})
    noted: list[str] = []
    run = sources.run

    def noting(name: str, *args: Any, **kwargs: Any) -> None:
        noted.append(name)
        run(name, *args, **kwargs)

    monkeypatch.setattr(sums, "run", noting)
    return noted


def test_few_launches_for_many_small_tensors(launches: list[str]) -> None:
    many = [torch.ones(576) for _ in range(272)]
    fused.add_([together(many)], RADEMACHER, compiled=True)
    assert launches == ["rademacher_words_cpu", "rademacher_2_float32_cpu"]


def test_without_compiled_kernels_z_is_generated_once_for_the_passes_of_a_step(
    launches: list[str],
) -> None:
    theta = tensors()
    plain = [tensor.clone() for tensor in theta]
    for coefficient in (1.0, -2.0, 1.0):
        fused.add_([together(theta, ((1, coefficient),))], GAUSSIAN)
    assert launches == ["gaussian_words_cpu", "gaussian_z_float32_cpu"]
    for index, (tensor, alone) in enumerate(zip(theta, plain, strict=True)):
        for coefficient in (1.0, -2.0, 1.0):
            pool._idle.clear()
            fused.add_([Change.of(alone, index, ((1, coefficient),), 0.9)], GAUSSIAN)
        assert torch.equal(tensor, alone)


def test_what_pools_keep_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(pool, "_idle", {})
    monkeypatch.setattr(pool, "_KEPT", 20 * BLOCK)
    terms = tuple((seed, 0.1) for seed in range(40))
    for size in (8 * BLOCK, 9 * BLOCK, 3 * BLOCK + 1, 30 * BLOCK):
        fused.add_([Change.of(torch.ones(size), 0, terms)], RADEMACHER)
        kept = sum(each.blocks.numel() for each in pool._idle.values())
        assert kept <= 20 * BLOCK or len(pool._idle) == 1
        for each in pool._idle.values():
            assert 1 <= len(each._recent) <= max(1, 20 * BLOCK // each.blocks.numel())


def test_passes_in_inference_mode_and_outside_follow_each_other() -> None:
    theta, again = torch.zeros(700), torch.zeros(700)
    for step in range(4):
        with torch.inference_mode(step % 2 == 0):
            fused.add_([Change.of(theta, 0, ((step, 0.5),))], RADEMACHER)
        fused.add_([Change.of(again, 0, ((step, 0.5),))], RADEMACHER)
    assert torch.equal(theta, again)


def test_threads_with_models_alike_do_not_share_a_pool() -> None:
    def passes(theta: Tensor, seed: int) -> None:
        for _ in range(50):
            fused.add_([Change.of(theta, 0, ((seed, 0.5),))], RADEMACHER)

    theta = [torch.zeros(5000) for _ in range(4)]
    threads = [Thread(target=passes, args=(each, seed)) for seed, each in enumerate(theta)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, each in enumerate(theta):
        alone = torch.zeros(5000)
        passes(alone, seed)
        assert torch.equal(each, alone)


def test_compiled_together_equals_eager() -> None:
    eager, compiled = tensors(), tensors()
    fused.add_([together(eager)], RADEMACHER)
    fused.add_([together(compiled)], RADEMACHER, compiled=True)
    assert all(torch.equal(a, b) for a, b in zip(eager, compiled, strict=True))
    assert not compilation._state.broken
