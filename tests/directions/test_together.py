"""Tensors together in a launch: what each gets is what it would get alone."""

from collections.abc import Sequence
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from zoopt.directions.kernel import cpp_build, eager, fused, plan
from zoopt.directions.kernel.gaussian import GAUSSIAN
from zoopt.directions.kernel.generator import BLOCK, Unit
from zoopt.directions.kernel.rademacher import RADEMACHER
from zoopt.interfaces import Change, Place, Terms

TERMS: Terms = ((1, 0.5), (2, -0.25))
SIZES = (1, 700, 5 * BLOCK, 40 * BLOCK + 3, 3, 8 * BLOCK, 64 * BLOCK)

each_kernel = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tensors in a chunk, and several chunks of a tensor."""
    monkeypatch.setattr(eager, "_CHUNK", 4000)


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
@each_kernel
def test_together_equals_one_by_one(
    unit: Unit, dtype: torch.dtype, number: int, stochastic: bool, compiled: bool
) -> None:
    terms = tuple((seed, 0.3 / (1 + seed)) for seed in range(number))
    how: dict[str, Any] = {"stochastic_rounding": stochastic, "compiled": compiled}
    many, alone = tensors(dtype), tensors(dtype)
    fused.add_([together(many, terms)], unit, **how)
    fused.add_(one_by_one(alone, terms), unit, **how)
    assert all(torch.equal(a, b) for a, b in zip(many, alone, strict=True))


@each_kernel
@pytest.mark.usefixtures("small_segments")
def test_segments_are_kept_apart(compiled: bool) -> None:
    many, alone = tensors(), tensors()
    fused.add_([together(many)], RADEMACHER, compiled=compiled)
    fused.add_(one_by_one(alone), RADEMACHER, compiled=compiled)
    assert all(torch.equal(a, b) for a, b in zip(many, alone, strict=True))


@each_kernel
def test_places_may_differ_in_dtype_and_layout(compiled: bool) -> None:
    def mixed() -> list[Tensor]:
        half, double = (torch.ones(700, dtype=d) for d in (torch.bfloat16, torch.float64))
        return [torch.ones(700), half, torch.ones(30, 40).t(), double, torch.ones(0)]

    many, alone = mixed(), mixed()
    fused.add_([together(many)], GAUSSIAN, compiled=compiled)
    fused.add_(one_by_one(alone), GAUSSIAN, compiled=compiled)
    assert all(torch.equal(a, b) for a, b in zip(many, alone, strict=True))
    assert many[2].stride() == (1, 40)


@each_kernel
def test_changes_may_differ_in_terms_and_decay(compiled: bool) -> None:
    theta = [torch.ones(3) for _ in range(4)]
    changes = [
        Change.of(theta[0], 0, TERMS[:1]),
        Change.of(theta[1], 0, TERMS[:1], decay=0.5),
        Change.of(theta[2], 0, (), decay=0.5),
        Change.of(theta[3], 0, ()),
    ]
    fused.add_(changes, RADEMACHER, compiled=compiled)
    assert torch.equal(theta[0] - theta[1], torch.full((3,), 0.5))
    assert theta[2].tolist() == [0.5] * 3
    assert theta[3].tolist() == [1.0] * 3


def test_nothing_is_changed_where_one_of_them_cannot_be() -> None:
    fine = torch.ones(5)
    with pytest.raises(TypeError, match=r"torch\.int64"):
        fused.add_(one_by_one([fine, torch.ones(5).long()]), GAUSSIAN)
    assert fine.tolist() == [1.0] * 5


def test_chunks_cover_every_element_once_and_keep_their_limit() -> None:
    flats = tensors()
    chunks = list(eager._chunks([Place(flat, i) for i, flat in enumerate(flats)], 0, 4000))
    assert [sum(len(piece.elements) for piece in chunk) for chunk in chunks[:-1]] == [4000] * (
        len(chunks) - 1
    )
    assert any(len(chunk) > 1 for chunk in chunks)
    for chunk in chunks:
        for piece in chunk:
            piece.elements.add_(100.0)
    for flat, plain in zip(flats, tensors(), strict=True):
        assert torch.equal(flat, plain + 100.0)


def test_passes_in_inference_mode_and_outside_follow_each_other() -> None:
    theta, again = torch.zeros(700), torch.zeros(700)
    for step in range(4):
        with torch.inference_mode(step % 2 == 0):
            fused.add_([Change.of(theta, 0, ((step, 0.5),))], RADEMACHER)
        fused.add_([Change.of(again, 0, ((step, 0.5),))], RADEMACHER)
    assert torch.equal(theta, again)


def test_threads_do_not_disturb_each_other() -> None:
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


def test_plans_are_kept_by_their_contents() -> None:
    theta = torch.zeros(3000)
    fused.add_([Change.of(theta, 0, TERMS)], RADEMACHER, compiled=True)  # and checks
    plan._plan.cache_clear()
    for seed in range(3):
        fused.add_([Change.of(theta, 0, ((seed, 1.0),))], RADEMACHER, compiled=True)
    assert plan._plan.cache_info().misses == 1
    fused.add_([Change.of(theta[:2000], 0, ((seed, 1.0),))], RADEMACHER, compiled=True)
    assert plan._plan.cache_info().misses == 2


def test_the_keys_that_a_plan_keeps_are_bounded() -> None:
    plan._plan.cache_clear()
    theta = torch.zeros(3000)
    for seed in range(40):
        fused.add_([Change.of(theta, 0, ((seed, 0.1),))], RADEMACHER, compiled=True)
    kept = plan.plan_of([Place(theta, 0)], 0, cpp_build.TILE)
    assert len(kept._keys) == plan._KEPT
