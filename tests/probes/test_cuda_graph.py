"""When a forward is recorded as a CUDA graph, and what is replayed in its place."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoopt
from zoopt.probes import cuda_graph

X, Y = torch.linspace(-1, 1, 24).view(4, 6), torch.ones(4, 2)


class Recorded:
    """In the place of a recording: remembers that there is one, and calls the function."""

    made: list["Recorded"]

    def __init__(self, function: Any, inputs: tuple[Tensor, ...], pool: Any) -> None:
        self.function, self.shapes, self.replayed = function, [x.shape for x in inputs], 0
        Recorded.made.append(self)

    def replay(self, inputs: tuple[Tensor, ...]) -> Any:
        self.replayed += 1
        return self.function(*inputs)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """Recordings on a CPU."""
    monkeypatch.setattr(cuda_graph, "_DEVICES", ("cpu",))
    monkeypatch.setattr(cuda_graph, "_Recording", Recorded)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: object())
    Recorded.made = []
    return Recorded.made


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2)
    return nn.Sequential(*layers).to(dtype).eval()


def tuned(model: nn.Module, steps: int = 3, **how: Any) -> zoopt.CudaGraph:
    loss = zoopt.CudaGraph(lambda x, y: (model(x) - y).square().mean().float())
    dtype = next(model.parameters()).dtype
    optimizer = zoopt.ZOOptimizer(model, 1e-3, "spsa", **how)
    for _ in range(steps):
        optimizer.step(lambda: loss(X.to(dtype), Y.to(dtype)))
    return loss


def test_on_a_cpu_it_calls_the_function() -> None:
    loss = zoopt.CudaGraph(lambda x, y: {"sum": (x.sum() + y.sum())})
    for _ in range(3):
        assert loss(X, Y)["sum"] == X.sum() + Y.sum()
    assert not loss._recordings


def test_other_values_than_tensors_are_refused() -> None:
    with pytest.raises(TypeError, match=r"called with a float.*functools\.partial"):
        zoopt.CudaGraph(lambda x, scale: x.sum() * scale)(X, 2.0)


@pytest.mark.parametrize(("engine", "dtype"), [("inplace", torch.float32), ("copy", torch.float32)])
def test_in_fp32_there_is_one_recording(
    engine: str, dtype: torch.dtype, recorded: list[Recorded]
) -> None:
    loss = tuned(network(dtype), engine=engine)
    (only,) = recorded
    assert only.replayed == 5  # of six probes the first is called
    loss(X, Y)
    assert only.replayed == 6
    loss(X[:2], Y[:2])
    loss(X[:2], Y[:2])
    assert [each.shapes[0] for each in recorded] == [(4, 6), (2, 6)]


@pytest.mark.parametrize("engine", ["inplace", "copy"])
def test_in_half_precision_probes_and_the_rest_have_their_own(
    engine: str, recorded: list[Recorded]
) -> None:
    """Probes read the fp32 masters of vectors, other calls the vectors. The first is watched."""
    loss = tuned(network(torch.bfloat16), engine=engine)
    (of_probes,) = recorded
    assert of_probes.replayed == 4
    for _ in range(3):
        loss(X.bfloat16(), Y.bfloat16())
    assert len(recorded) == 2
    assert of_probes.replayed == 4
    assert recorded[1].replayed == 2


def test_what_was_recorded_in_training_mode_is_not_replayed_in_a_probe(
    recorded: list[Recorded],
) -> None:
    model = network().append(nn.Dropout(0.5)).train()
    loss = zoopt.CudaGraph(lambda x: model(x).square().mean())
    outside = [loss(X) for _ in range(2)]
    optimizer = zoopt.ZOOptimizer(model, 0.0, "spsa", engine="copy")
    for _ in range(2):
        optimizer.step(lambda: loss(X))
    assert [each.replayed for each in recorded] == [1, 3]
    model.eval()
    assert optimizer.estimated.losses[0] == pytest.approx(loss.function(X).item(), rel=0.01)
    assert outside[0] != outside[1]


def test_under_another_autocast_another_is_recorded(recorded: list[Recorded]) -> None:
    loss = zoopt.CudaGraph(network())
    for kind in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", kind):
            for _ in range(3):
                loss(X)
    assert [each.replayed for each in recorded] == [2, 2]


def test_another_optimizer_has_its_own(recorded: list[Recorded]) -> None:
    model = network(torch.bfloat16)
    loss = zoopt.CudaGraph(lambda x: model(x).float().mean())
    for _ in range(2):
        optimizer = zoopt.ZOOptimizer(model, 1e-3, "spsa", engine="copy")
        for _ in range(2):
            optimizer.step(lambda: loss(X.bfloat16()))
    assert len(recorded) == 2


def grouped(model: nn.Module, loss: zoopt.CudaGraph) -> Any:
    return lambda population: population.per_probe(loss(population.expand(X))).mean((1, 2))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"engine": "overlay"}, "engine='overlay' creates new tensors for each probe"),
        ({"engine": "batched", "direction": "lowrank"}, "new factors for each population"),
        ({"engine": "inplace", "params": ["3.*"]}, "Use share_prefix=False"),
    ],
    ids=["overlay", "batched", "prefix"],
)
def test_what_passes_is_not_recorded_and_is_said_once(
    how: dict[str, Any],
    said: str,
    recorded: list[Recorded],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = network()
    loss = zoopt.CudaGraph(model)
    optimizer = zoopt.ZOOptimizer(model, 1e-3, "spsa", **how)
    batched = how["engine"] == "batched"
    with caplog.at_level(logging.WARNING, "zoopt"):
        for _ in range(3):
            optimizer.step(grouped(model, loss) if batched else lambda: loss(X).square().mean())
    (message,) = [m for m in caplog.messages if "CudaGraph" in m]
    assert said in message
    assert not recorded
    assert not cuda_graph._places


def test_what_takes_parameters_otherwise_is_not_recorded(
    recorded: list[Recorded], caplog: pytest.LogCaptureFixture
) -> None:
    model = network(torch.bfloat16)
    norm = model[1].weight  # is no module's when it is used
    loss = zoopt.CudaGraph(lambda x: model(x).float().mean() + norm.float().sum())
    optimizer = zoopt.ZOOptimizer(model, 1e-3, "spsa", engine="copy")
    with caplog.at_level(logging.WARNING, "zoopt"):
        for _ in range(3):
            optimizer.step(lambda: loss(X.bfloat16()))
    assert not recorded
    assert "other than as attributes of their modules" in caplog.text


def test_the_surroundings_are_left_also_by_an_error() -> None:
    optimizer = zoopt.ZOOptimizer(network(torch.bfloat16), 1e-3, "spsa", engine="copy")
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert not cuda_graph._places
