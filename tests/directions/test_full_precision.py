"""Updates are not rounded to what a model's products are."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from zoopt.directions import LowRank
from zoopt.directions.kernel.full_precision import full_precision
from zoopt.interfaces import Change

PRODUCTS = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul


def held() -> tuple[str, ...]:
    """What is set, as far as torch tells: the older setting is not readable beside the others."""
    try:
        everywhere = torch.get_float32_matmul_precision()
    except RuntimeError:
        everywhere = "unreadable"
    return everywhere, *(products.fp32_precision for products in PRODUCTS)


@pytest.fixture(params=["highest", "high", "medium", "cuda alone", "cpu alone"])
def fast_products(request: pytest.FixtureRequest) -> Iterator[None]:
    before = held()[1:]
    if request.param == "cuda alone":
        PRODUCTS[0].fp32_precision = "tf32"
    elif request.param == "cpu alone":
        PRODUCTS[1].fp32_precision = "bf16"
    else:
        torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision("highest")
    for products, precision in zip(PRODUCTS, before, strict=True):
        products.fp32_precision = precision


@pytest.mark.usefixtures("fast_products")
def test_inside_it_is_full_and_outside_what_it_was() -> None:
    before = held()
    with full_precision():
        assert held() == ("highest", "ieee", "ieee")
    assert held() == before


@pytest.mark.usefixtures("fast_products")
def test_a_low_rank_pass_is_made_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found, addmm = [], torch.addmm

    def seen(*args: Any, **kwargs: Any) -> torch.Tensor:
        found.append(held())
        return addmm(*args, **kwargs)

    monkeypatch.setattr(torch, "addmm", seen)
    direction, theta = LowRank(), torch.zeros(4, 3)
    direction.add_(Change.of(theta, 0, ((7, 1.0),)))
    rows = direction.rows(torch.zeros(4, 3), torch.tensor([1, 2]), 0, ((7, 1.0),))
    assert found == [("highest", "ieee", "ieee")] * 2
    assert torch.equal(rows, theta[1:3])


def test_rows_under_autocast_are_those_of_the_whole() -> None:
    """What is added is a thousandth of what it is added to: bf16 products would lose it."""
    direction, terms = LowRank(), ((7, 1e-3),)
    theta = torch.linspace(1, 2, 12).view(4, 3)
    whole = theta.clone()
    direction.add_(Change.of(whole, 0, terms))
    with torch.autocast("cpu", torch.bfloat16):
        rows = direction.rows(theta, torch.tensor([3, 0]), 0, terms)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(rows, whole[[3, 0]])
