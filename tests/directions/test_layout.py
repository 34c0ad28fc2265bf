"""Tensors together in few launches: what each gets is what it would get alone."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from zoopt.directions.gaussian import GAUSSIAN
from zoopt.directions.kernel import compilation, fused, generator, layout
from zoopt.directions.kernel.generator import BLOCK, Unit
from zoopt.directions.kernel.layout import Piece
from zoopt.directions.rademacher import RADEMACHER
from zoopt.interfaces import Change, Place, Terms

TERMS: Terms = ((1, 0.5), (2, -0.25))
SIZES = (1, 700, 5 * BLOCK, 40 * BLOCK + 3, 3, 8 * BLOCK, 64 * BLOCK)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of piece, in several batches, at sizes that a test can afford."""
    monkeypatch.setattr(layout, "DIRECT", 4)
    monkeypatch.setattr(layout, "POOL", 6)
    monkeypatch.setattr(fused, "_WORDS", 16 * 16)
    monkeypatch.setattr(fused, "_WIDE_BATCH", 5)


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


def test_batches_cover_every_element_once_and_keep_their_limits() -> None:
    flats = tensors()
    pieces = [Piece(flat, index, 0, 0, flat) for index, flat in enumerate(flats)]
    made = list(layout.batches(pieces, most=16))
    assert len(made) > 2
    for batch in made:
        assert sum(piece.blocks for piece in batch.pieces) <= 16
        assert sum(piece.blocks for piece in batch.pooled) <= 6
        for _, blocks, _ in batch.runs():
            blocks.add_(100.0)
    for flat, plain in zip(flats, tensors(), strict=True):
        assert torch.equal(flat, plain + 100.0)


def test_few_launches_for_many_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    launches = []
    run = fused._run

    def noted(name: str, *args: Any, **kwargs: Any) -> None:
        launches.append(name)
        run(name, *args, **kwargs)

    monkeypatch.setattr(fused, "_run", noted)
    fused.add_([together([torch.ones(576) for _ in range(272)])], RADEMACHER)
    assert launches == ["rademacher_words_cpu", "rademacher_2_float32_cpu"]


def test_compiled_together_equals_eager() -> None:
    eager, compiled = tensors(), tensors()
    fused.add_([together(eager)], RADEMACHER)
    fused.add_([together(compiled)], RADEMACHER, compiled=True)
    assert all(torch.equal(a, b) for a, b in zip(eager, compiled, strict=True))
    assert not compilation._state.broken
