"""Overlay over several steps: what it learns of a model makes it faster, and nothing else."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack as modes

import zoopt
from zoopt.directions.dense import DenseDirection
from zoopt.engines import overlay
from zoopt.engines.interception.mode import UnseenParameterError
from zoopt.interfaces import Change

IDS = torch.arange(12).view(3, 4)


class Layers(nn.Module):
    """A layer that comes twice, others, and a head that takes the embedding's matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.turned = nn.Parameter(torch.randn(8, 6).T)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in (self.layers[0], *self.layers):
            x = layer(x).tanh()
        return F.linear(x + F.linear(x, self.turned) @ self.turned, self.embedding.weight)


def outputs(engine: str, steps: int = 4, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """What the probes of some steps give, on θ that stays as it is."""
    model, found = Layers().to(dtype), []

    def closure() -> float:
        found.append(model(IDS))
        return 0.0

    optimizer = zoopt.ZOOptimizer(model, 0.0, "spsa", engine=engine, eps=0.1)
    for _ in range(steps):
        optimizer.step(closure)
    return found


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Indices of the tensors in each pass that writes elsewhere."""
    seen: list[list[int]] = []
    add = DenseDirection.add_

    def counting(self: DenseDirection, *changes: Change, **how: Any) -> None:
        places = [place for change in changes for place in change.places]
        if any(place.into is not None for place in places):
            seen.append([place.index for place in places])
        add(self, *changes, **how)

    monkeypatch.setattr(DenseDirection, "add_", counting)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("room", [0, 600, 1 << 20], ids="{} bytes".format)
def test_probes_are_the_same_however_matrices_are_made(
    room: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = outputs("overlay", dtype=dtype)
    monkeypatch.setattr(overlay, "_DEVICES", ("cpu",))
    monkeypatch.setattr(overlay, "_TOGETHER", room)
    assert all(map(torch.equal, outputs("overlay", dtype=dtype), alone))
    assert not torch.equal(alone[0], alone[1])
    for mine, exact in zip(alone, outputs("copy", dtype=dtype), strict=True):
        torch.testing.assert_close(mine, exact)


def test_matrices_are_made_with_those_that_follow(
    monkeypatch: pytest.MonkeyPatch, passes: list[list[int]]
) -> None:
    """Layers 1 to 3 (tensors 4, 6, 8) always follow each other; layer 0 (tensor 2) does not."""
    monkeypatch.setattr(overlay, "_DEVICES", ("cpu",))
    outputs("overlay", steps=2)
    of_matrices = [made for made in passes if made != [3, 5, 7, 9]]
    alone = [[2], [2], [4], [6], [8], [0], [0], [1]]
    together = [[2], [2], [4, 6, 8], [0], [0], [1]]
    assert of_matrices == alone + 3 * together


def test_room_is_that_of_the_largest(
    monkeypatch: pytest.MonkeyPatch, passes: list[list[int]]
) -> None:
    """Of the head, which has the size of two and a half layers."""
    monkeypatch.setattr(overlay, "_DEVICES", ("cpu",))
    monkeypatch.setattr(overlay, "_TOGETHER", 0)
    outputs("overlay", steps=1)
    assert [4, 6] in passes
    assert [4, 6, 8] not in passes


def test_on_a_cpu_a_matrix_is_made_alone(passes: list[list[int]]) -> None:
    outputs("overlay")
    assert all(len(made) == 1 for made in passes if made != [3, 5, 7, 9])


@pytest.mark.parametrize("shapes", [[(3, 5), (2, 7), (1, 1)], [(4, 4)]], ids=str)
def test_rooms_are_apart_and_no_views(shapes: Sequence[tuple[int, int]]) -> None:
    matrices = [torch.randn(shape).bfloat16() for shape in shapes]
    rooms = overlay._rooms(matrices)
    with torch.no_grad():
        for room, matrix in zip(rooms, matrices, strict=True):
            room.copy_(matrix)
    for room, matrix in zip(rooms, matrices, strict=True):
        assert torch.equal(room, matrix)
        assert not room._is_view()
        assert room.data_ptr() % 16 == 0


def test_operations_on_other_tensors_go_their_way_after_the_first_probe() -> None:
    model, depths = nn.Linear(8, 3), []

    def closure() -> Tensor:
        depths.append(len(modes()))
        return model(torch.ones(2, 8)).sum()

    optimizer = zoopt.ZOOptimizer(model, 0.0, "spsa", engine="overlay")
    optimizer.step(closure)
    optimizer.step(closure)
    assert depths == [1, 0, 0, 0]


def test_a_parameter_that_is_left_out_later_is_missed() -> None:
    model, steps = Layers(), []

    def closure() -> Tensor:
        steps.append(None)
        return model(IDS).sum() if len(steps) < 3 else model.embedding(IDS).sum()

    optimizer = zoopt.ZOOptimizer(model, 0.0, "spsa", engine="overlay")
    optimizer.step(closure)
    with pytest.raises(RuntimeError, match=r"layers\.0\.weight"):
        optimizer.step(closure)
    assert type(model.embedding.weight) is nn.Parameter


def test_vectors_that_are_not_contiguous_have_room() -> None:
    weights = [nn.Parameter(torch.randn(1200)[:: 1 + k % 2][:600]) for k in range(3)]
    found = []

    def closure() -> float:
        found.append(weights[0] * weights[1] + weights[2])
        return 0.0

    for engine in ("overlay", "copy"):
        optimizer = zoopt.ZOOptimizer(weights, 0.0, "spsa", engine=engine, eps=0.1)
        optimizer.step(closure)
    overlaid, explicit = found[:2], found[2:]
    assert all(map(torch.equal, overlaid, explicit))
    assert not torch.equal(*overlaid)


class Viewing(nn.Module):
    """A part of a matrix, looked up once for good."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.part = self.weight[:2]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight).sum() + F.linear(x, self.part).square().sum()


@pytest.mark.parametrize("how", ["detach", "state_dict", "data"])
def test_a_parameters_memory_taken_before_the_probe_is_refused(how: str) -> None:
    model = nn.Linear(4, 3)
    before = {
        "detach": model.weight.detach(),
        "state_dict": model.state_dict()["weight"],
        "data": model.weight.data,
    }[how]
    x = torch.ones(2, 4)
    optimizer = zoopt.ZOOptimizer(model, engine="overlay")
    with pytest.raises(UnseenParameterError, match="a view of weight that was created before"):
        optimizer.step(lambda: (model(x) + F.linear(x, before)).sum())


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize("engine", ["overlay", "batched"])
def test_another_tensor_with_a_parameters_memory_is_refused(engine: str, buffer: bool) -> None:
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7))
    if buffer:
        model.register_buffer("shared", model[0].weight.data)
    else:
        model[1].weight = nn.Parameter(model[0].weight.data, requires_grad=False)
    name = "shared" if buffer else "1.weight"
    with pytest.raises(ValueError, match=rf"'{name}' is another tensor .* tie them as one Param"):
        zoopt.ZOOptimizer(model, engine=engine, direction="lowrank")
    zoopt.ZOOptimizer(model, engine="copy")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [0, 2])
def test_an_objective_that_writes_to_theta_is_refused(dtype: torch.dtype, steps: int) -> None:
    model = nn.Linear(4, 3).to(dtype)
    x = torch.ones(2, 4, dtype=dtype)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = zoopt.ZOOptimizer(model, 0.0, engine="overlay")
    for _ in range(steps):
        optimizer.step(lambda: model(x).float().sum())

    def writing(name: str) -> Tensor:
        getattr(model, name).mul_(0.5)
        return model(x).float().sum()

    for name in ("weight", "bias"):
        with pytest.raises(RuntimeError, match=r"wrote to a tuned parameter.*engine='copy'"):
            optimizer.step(lambda name=name: writing(name))
    assert all(map(torch.equal, before, model.parameters()))


def test_a_view_from_before_the_probe_is_refused() -> None:
    model, x = Viewing(), torch.randn(3, 6)
    optimizer = zoopt.ZOOptimizer(model, engine="overlay")
    with pytest.raises(UnseenParameterError, match=r"a view of weight .* create the view where"):
        optimizer.step(lambda: model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_matrices_are_made_under_vmap(dtype: torch.dtype) -> None:
    found = []
    for engine in ("overlay", "copy"):
        torch.manual_seed(0)
        model, x = nn.Linear(6, 4).to(dtype), torch.randn(3, 6).to(dtype)
        optimizer = zoopt.ZOOptimizer(model, 0.0, "spsa", engine=engine)
        optimizer.step(lambda model=model, x=x: torch.vmap(model)(x).float().square().sum())
        found.append(optimizer.estimated.losses)
    assert found[0][0] != found[0][1]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
