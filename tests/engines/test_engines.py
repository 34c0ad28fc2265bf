"""The engines: what a probe evaluates, what it leaves behind, and how often it passes over θ."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import zoopt
from zoopt import registry, testing
from zoopt.engines import Copy, InPlace, Overlay, UnseenParameterError
from zoopt.interfaces import Change, Displacement, NonFiniteLossError, Slot
from zoopt.support.signals import deferred_signals

HALF_AND_FULL = [torch.float32, torch.bfloat16, torch.float16]
UPDATES = sorted(registry.UPDATES)
ESTIMATORS = {
    "mezo": lambda: zoopt.MeZO(eps=1e-2),
    "nspsa": lambda: zoopt.NSPSA(eps=1e-2, n=3),
}


class Interception(TorchFunctionMode):
    """Changes nothing, but sends operations along the path that they take under the overlay."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def slots_of(model: nn.Module) -> tuple[Slot, ...]:
    return tuple(Slot(i, name, p) for i, (name, p) in enumerate(model.named_parameters()))


def snapshot(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def unchanged(model: nn.Module, before: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def ulps_moved(model: nn.Module, before: list[Tensor], eps: float) -> float:
    """How far θ is from before, in ulps of max(|θ|, ε|z|) with |z| taken as 1 where it is less."""
    worst = 0.0
    for now, then in zip(model.parameters(), before, strict=True):
        scale = then.abs().clamp_min(eps)
        ulp = torch.nextafter(scale, torch.tensor(float("inf"))) - scale
        worst = max(worst, ((now.detach() - then).abs() / ulp).max().item())
    return worst


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))


def objective(model: nn.Module) -> Callable[[], Tensor]:
    inputs = torch.linspace(-1, 1, 30).view(10, 3)
    return lambda: (model(inputs) ** 2).mean()


# --------------------------------------------------------------------------- overlay = perturbation


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


class Operations(nn.Module):
    """One operation on a bare weight."""

    def __init__(self, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.operation = nn.Parameter(torch.randn(6, 6)), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self.weight, x)


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        kv = x[..., : self.attention.kdim or 8]
        return self.attention(x, kv, kv)[0]


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.recurrent = kind(6, 5, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[0]


def reals(*shape: int) -> Callable[[torch.dtype], Tensor]:
    return lambda dtype: torch.randn(*shape).to(dtype)


def ids(*shape: int) -> Callable[[torch.dtype], Tensor]:
    return lambda dtype: torch.randint(0, 11, shape)


Case = tuple[Callable[[], nn.Module], Callable[[torch.dtype], Tensor]]
MODULES: dict[str, Case] = {
    "linear": (lambda: nn.Linear(6, 4), reals(5, 6)),
    "attention": (Attention, reals(2, 5, 8)),
    "attention with own k and v": (lambda: Attention(kdim=4, vdim=4), reals(2, 5, 8)),
    "embedding": (lambda: nn.Embedding(11, 6), ids(3, 4)),
    "embedding with max_norm": (lambda: nn.Embedding(11, 6, max_norm=0.5), ids(3, 4)),
    "embedding with padding": (lambda: nn.Embedding(11, 6, padding_idx=0), ids(3, 4)),
    "embedding bag": (lambda: nn.EmbeddingBag(11, 6), ids(3, 4)),
    "tied head": (Tied, ids(3, 4)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), reals(2, 3, 6, 6)),
    "layer norm": (lambda: nn.LayerNorm(6), reals(5, 6)),
    "rms norm": (lambda: nn.RMSNorm(6), reals(5, 6)),
    "batch norm": (lambda: nn.BatchNorm1d(6), reals(5, 6)),
    "lstm": (lambda: Recurrent(nn.LSTM), reals(4, 2, 6)),
    "two bidirectional lstms": (
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
        reals(4, 2, 6),
    ),
    "gru": (lambda: Recurrent(nn.GRU), reals(4, 2, 6)),
    "transformer layer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        reals(2, 5, 8),
    ),
    "transposed": (lambda: Operations(lambda w, x: w.t() @ x), reals(6, 5)),
    "transposed by attribute": (lambda: Operations(lambda w, x: w.T @ x), reals(6, 5)),
    "view": (lambda: Operations(lambda w, x: x @ w.view(9, 4)[:6]), reals(5, 6)),
    "two views at once": (
        lambda: Operations(lambda w, x: (w.t() @ x).sum() + (w.view(-1)[:6] * x[:, 0]).sum()),
        reals(6, 5),
    ),
    "indexed": (lambda: Operations(lambda w, x: w[torch.tensor([0, 2, 2])] @ x), reals(6, 5)),
    "data": (lambda: Operations(lambda w, x: w.data @ x), reals(6, 5)),
    "keyword": (lambda: Operations(lambda w, x: F.linear(input=x, weight=w)), reals(5, 6)),
    "list": (lambda: Operations(lambda w, x: torch.cat([w, x])), reals(5, 6)),
    "chunks": (lambda: Operations(lambda w, x: x @ w.chunk(2)[1].t()), reals(5, 6)),
    "scalar arithmetic": (lambda: Operations(lambda w, x: (1 + w) * 2 - w / 3 + x), reals(6, 6)),
    "einsum": (lambda: Operations(lambda w, x: torch.einsum("ij,bj->bi", w, x)), reals(5, 6)),
}


@pytest.mark.parametrize("dtype", HALF_AND_FULL, ids=str)
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("direction", ["gaussian", "rademacher"])
def test_overlay_equals_explicit_perturbation(
    name: str, dtype: torch.dtype, direction: str
) -> None:
    make, make_input = MODULES[name]
    model = make().to(dtype).eval()
    inputs, slots, family = make_input(dtype), slots_of(model), registry.make_direction(direction)
    family.bind(slots)
    displacement = Displacement((((1, 0.05), (2, -0.02)),))
    outputs: list[Tensor] = []

    def loss() -> float:
        with Interception():
            outputs.append(model(inputs))
        return 0.0

    before = snapshot(model)
    with torch.no_grad():
        Copy(slots, family).evaluate([displacement], lambda population: [loss()])
        assert unchanged(model, before)
        overlay = Overlay(slots, family, model)
        for _ in range(2):  # the second is not watched
            overlay.probe(displacement, loss)
            assert unchanged(model, before)
        loss()
    explicit, first, second, plain = outputs
    assert torch.equal(first, explicit)
    assert torch.equal(second, explicit)
    assert not torch.equal(first, plain)


def test_in_place_refuses_an_objective_that_writes_to_theta() -> None:
    model = nn.Embedding(11, 6, max_norm=0.5)
    optimizer = zoopt.ZOOptimizer(model, engine="inplace")
    with pytest.raises(RuntimeError, match=r"wrote to a tuned parameter .*engine='overlay'"):
        optimizer.step(lambda: model(torch.arange(4)).sum())


def test_overlay_refuses_indices_that_the_embedding_would_refuse() -> None:
    model = nn.Embedding(11, 6)
    optimizer = zoopt.ZOOptimizer(model, engine="overlay")
    for wrong in (-1, 11):
        with pytest.raises(IndexError):
            optimizer.step(lambda wrong=wrong: model(torch.tensor([wrong])).sum())


def test_tied_parameters_are_one_tensor_of_theta(engine_name: str) -> None:
    model = Tied()
    optimizer = zoopt.ZOOptimizer(model, engine=engine_name)
    assert [slot.name for slot in optimizer.slots] == ["embedding.weight"]


# -------------------------------------------------------------------------- what overlay cannot see


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


OPAQUE: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "torch.compile(m)": (compiled, "a compiled module"),
    "m.compile()": (compiled_in_place, "a compiled module"),
    "scripted": (torch.jit.script, "a scripted or traced module"),
    "traced": (lambda m: torch.jit.trace(m, torch.ones(1, 3)), "a scripted or traced module"),
}


@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.parametrize("kind", OPAQUE)
def test_opaque_modules_are_refused_by_name(kind: str) -> None:
    wrap, what = OPAQUE[kind]
    with pytest.raises(TypeError, match=f"is {what}, whose.*engine='copy'"):
        zoopt.ZOOptimizer(wrap(nn.Linear(3, 2)), engine="overlay")
    nested = nn.ModuleDict({"plain": nn.Linear(2, 2), "fast": wrap(nn.Linear(3, 2))})
    with pytest.raises(TypeError, match=f"module 'fast' is {what}"):
        zoopt.ZOOptimizer(nested, engine="overlay")
    zoopt.ZOOptimizer(nested, engine="copy")


def test_parameters_that_no_operation_took_are_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    optimizer = zoopt.ZOOptimizer(model, engine="overlay")
    before = snapshot(model)
    with pytest.raises(
        UnseenParameterError, match=r"used idle\.weight, idle\.bias in no operation"
    ):
        optimizer.step(lambda: model["used"](torch.ones(1, 3)).sum())
    assert unchanged(model, before)


def test_asking_for_shape_and_dtype_is_not_using() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = zoopt.ZOOptimizer([weight], engine="overlay")
    with pytest.raises(UnseenParameterError):
        optimizer.step(lambda: float(weight.shape[0] + weight.numel() + weight.dtype.itemsize))


def test_work_in_other_threads_is_seen_where_modules_do_it() -> None:
    losses = []
    with ThreadPoolExecutor(1) as pool:
        for work in (lambda f: f(), lambda f: pool.submit(f).result()):
            torch.manual_seed(0)
            model = nn.Linear(3, 1)
            optimizer = zoopt.ZOOptimizer(model, engine="overlay", eps=0.1)
            optimizer.estimate(lambda work=work, model=model: work(objective(model)))
            assert optimizer.estimated is not None
            losses.append(optimizer.estimated.losses)
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 2


def test_other_work_in_other_threads_is_an_error_not_silence() -> None:
    model = nn.Linear(3, 1)
    weight, bias = model.weight, model.bias
    optimizer = zoopt.ZOOptimizer(model, engine="overlay")
    with ThreadPoolExecutor(1) as pool, pytest.raises(UnseenParameterError, match="another thread"):
        optimizer.step(lambda: pool.submit(lambda: (weight.sum() + bias).sum()).result())


def test_auto_is_overlay_in_half_precision_and_in_place_otherwise() -> None:
    assert isinstance(zoopt.ZOOptimizer(nn.Linear(2, 2), estimator="nspsa").engine, InPlace)
    half = nn.Linear(2, 2).to(torch.bfloat16)
    assert isinstance(zoopt.ZOOptimizer(half, estimator="nspsa").engine, Overlay)


# ------------------------------------------------------------------------------------ aborted steps


class NotNow(Exception):
    """What an objective raises here."""


def raising(error: type[BaseException]) -> Callable[[], float]:
    def fail() -> float:
        raise error

    return fail


FAILURES: dict[str, tuple[Callable[[], float], type[BaseException]]] = {
    "exception": (raising(NotNow), NotNow),
    "keyboard interrupt": (raising(KeyboardInterrupt), KeyboardInterrupt),
    "nan": (lambda: float("nan"), NonFiniteLossError),
    "infinity": (lambda: float("-inf"), NonFiniteLossError),
}


def failing_at(probe: int, closure: Callable[[], Any], failure: str) -> Callable[[], Any]:
    calls = iter(range(1000))
    return lambda: FAILURES[failure][0]() if next(calls) == probe else closure()


def abort(optimizer: zoopt.ZOOptimizer, closure: Callable[[], Any]) -> None:
    with pytest.raises((NotNow, KeyboardInterrupt, NonFiniteLossError)):
        optimizer.step(closure)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("update", UPDATES)
def test_an_aborted_step_leaves_theta_as_it_was(
    engine_name: str, update: str, estimator: str, failure: str
) -> None:
    model = mlp()
    optimizer = zoopt.ZOOptimizer(
        model, 0.01, ESTIMATORS[estimator](), engine=engine_name, update=update
    )
    optimizer.step(objective(model))
    for probe in range(2 * optimizer.estimator.n):
        before = snapshot(model)
        abort(optimizer, failing_at(probe, objective(model), failure))
        if engine_name == "inplace":
            assert ulps_moved(model, before, 1e-2) <= 2 * optimizer.estimator.n
        else:
            assert unchanged(model, before)
        assert optimizer.steps == 1
        with pytest.raises(RuntimeError, match="pending"):
            optimizer.step()


@pytest.mark.parametrize("update", UPDATES)
def test_a_step_after_an_aborted_one_is_the_step_there_would_have_been(
    engine_name: str, update: str
) -> None:
    ends = []
    for aborts in (False, True):
        torch.manual_seed(0)
        model = mlp()
        optimizer = zoopt.ZOOptimizer(model, 0.01, engine=engine_name, update=update)
        if aborts:
            abort(optimizer, failing_at(1, objective(model), "nan"))
        optimizer.step(objective(model))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-4)


def test_one_thousand_aborted_steps_in_place_drift_as_a_random_walk() -> None:
    model, eps = mlp(), 1e-3
    optimizer = zoopt.ZOOptimizer(model, estimator=zoopt.MeZO(eps=eps))
    start = snapshot(model)
    for cycle in range(1000):
        optimizer.steps = cycle  # other directions each time
        before = snapshot(model)
        abort(optimizer, failing_at(1, lambda: 0.0, "nan"))
        assert ulps_moved(model, before, eps) <= 2
    squares = [
        (p.detach() - q).square().mean().sqrt()
        for p, q in zip(model.parameters(), start, strict=True)
    ]
    assert ulps_moved(model, start, eps) <= 2 * 1000
    assert max(squares).item() < 4 * 1000**0.5 * 2.0**-24


def test_infinite_steps_say_what_to_do() -> None:
    model = mlp()
    optimizer = zoopt.ZOOptimizer(model, lr=0.5)
    with pytest.raises(NonFiniteLossError, match=r"nan at step 0.*lr 0\.5"):
        optimizer.step(lambda: float("nan"))


class Called(TorchDispatchMode):
    """Notes the names of the operations that torch comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_probe_multiplies_the_way_that_the_model_does(
    engine_name: str, dtype: torch.dtype
) -> None:
    """Of a slice torch makes one product or many, by what the weights say of their gradient."""
    layer = nn.Linear(6, 5, bias=False).to(dtype)
    x = torch.randn(4, 3, 6).to(dtype)[:, -1:]
    ways = []

    def closure() -> float:
        with Called() as called:
            out = layer(x)
        ways.append([name for name in called.names if "mm" in name])
        return out.float().sum().item()

    with torch.no_grad():
        closure()
    zoopt.ZOOptimizer(layer, engine=engine_name, estimator="spsa").step(closure)
    assert len(ways) == 3
    assert ways == [["aten.mm.default"]] * 3


# ------------------------------------------------------------------------------------------- passes


class Counting(zoopt.Rademacher):
    """Counts the passes over θ."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def add_(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        super().add_(*args, **kwargs)


def passes(steps: int, *, n: int = 1, chained: bool = False) -> int:
    model, direction = mlp(), Counting()
    optimizer = zoopt.ZOOptimizer(model, 0.01, zoopt.MeZO(n=n, direction=direction))
    if chained:
        with optimizer.chain():
            for _ in range(steps):
                optimizer.step(objective(model))
    else:
        for _ in range(steps):
            optimizer.step(objective(model))
    return direction.calls


def test_a_two_sided_step_in_place_is_three_passes() -> None:
    assert passes(4) == 3 * 4


def test_a_chained_step_is_two_passes_and_one_at_the_end() -> None:
    assert passes(4, chained=True) == 2 * 4 + 1


@pytest.mark.parametrize("n", [2, 5])
def test_the_update_of_n_probe_pairs_is_one_pass(n: int) -> None:
    assert passes(3, n=n) == (2 * n + 1) * 3


def test_chained_equals_unchained_to_rounding_and_settles(
    update_name: str, direction_name: str
) -> None:
    ends = []
    for chained in (False, True):
        torch.manual_seed(0)
        model = mlp()
        optimizer = zoopt.ZOOptimizer(
            model, 0.01, direction=direction_name, update=update_name, weight_decay=0.1
        )
        with optimizer.chain() if chained else torch.no_grad():
            for _ in range(10):
                optimizer.step(objective(model))
        assert not optimizer.engine.waiting
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-3)


def test_settle_within_a_chain_makes_theta_exact() -> None:
    x = nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = zoopt.ZOOptimizer([x], 0.5, zoopt.MeZO(eps=0.1))
    with optimizer.chain():
        optimizer.step(lambda: x.sum())
        assert optimizer.engine.waiting
        displaced = x.detach().clone()
        optimizer.settle()
        assert not optimizer.engine.waiting
        settled = x.detach().clone()
        optimizer.settle()
        assert torch.equal(x, settled)
    assert not torch.equal(displaced, settled)
    plain = nn.Parameter(torch.zeros(50, dtype=torch.float64))
    zoopt.ZOOptimizer([plain], 0.5, zoopt.MeZO(eps=0.1)).step(lambda: plain.sum())
    torch.testing.assert_close(settled, plain.detach())


def test_an_exception_within_a_chain_settles_the_update_before_it() -> None:
    model = mlp()
    twin = mlp()
    twin.load_state_dict(model.state_dict())
    zoopt.ZOOptimizer(twin, 0.01).step(objective(twin))
    optimizer = zoopt.ZOOptimizer(model, 0.01)
    with optimizer.chain():
        optimizer.step(objective(model))
        abort(optimizer, failing_at(1, objective(model), "exception"))
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------ signals


class Interrupting(zoopt.Rademacher):
    """Sends the process a Ctrl-C in the middle of a pass over θ."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def add_(self, *changes: Change, stochastic_rounding: bool = False) -> None:
        how = {"stochastic_rounding": stochastic_rounding}
        halves = [len(change.places) // 2 for change in changes]
        for change, half in zip(changes, halves, strict=True):
            super().add_(replace(change, places=change.places[:half]), **how)
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        for change, half in zip(changes, halves, strict=True):
            super().add_(replace(change, places=change.places[half:]), **how)


@pytest.fixture
def python_handles_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize("at", range(1, 10))
def test_ctrl_c_during_a_pass_waits_until_theta_is_consistent(engine_name: str, at: int) -> None:
    """Three steps are nine passes in place, and at least that with the other engines.

    In a probe the step is undone; in the update it is complete, and counted.
    """
    x = nn.ParameterList([torch.zeros(5, dtype=torch.float64) for _ in range(4)])
    closure = lambda: sum(p.sum() for p in x)  # noqa: E731
    optimizer = zoopt.ZOOptimizer(
        x.parameters(), 0.5, "spsa", direction=Interrupting(at), engine=engine_name
    )

    def run() -> None:
        for _ in range(3):
            optimizer.step(closure)

    with pytest.raises(KeyboardInterrupt):
        run()
    twin = nn.ParameterList([torch.zeros(5, dtype=torch.float64) for _ in range(4)])
    reference = zoopt.ZOOptimizer(
        twin.parameters(), 0.5, "spsa", direction="rademacher", engine=engine_name
    )
    for _ in range(optimizer.steps):
        reference.step(lambda: sum(p.sum() for p in twin))
    optimizer.settle()
    for p, q in zip(x, twin, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_that_is_put_off_within_another_waits_for_the_outer_one() -> None:
    done = []

    def twice() -> None:
        with deferred_signals():
            with deferred_signals():
                os.kill(os.getpid(), signal.SIGINT)
            done.append("outer")
        done.append("after")

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            twice()
    assert done == ["outer", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ------------------------------------------------------------------------------------------- memory


def test_theta_is_never_rebound(engine_name: str, update_name: str) -> None:
    model = mlp()
    optimizer = zoopt.ZOOptimizer(model, 0.01, engine=engine_name, update=update_name)
    before = [
        (id(p), id(p.data.untyped_storage()._cdata), p.data_ptr()) for p in model.parameters()
    ]
    for _ in range(2):
        optimizer.step(objective(model))
    after = [(id(p), id(p.data.untyped_storage()._cdata), p.data_ptr()) for p in model.parameters()]
    assert [b[::2] for b in before] == [a[::2] for a in after]


def test_the_copy_is_let_go_after_a_step() -> None:
    model = mlp()
    optimizer = zoopt.ZOOptimizer(model, estimator="spsa")
    assert isinstance(optimizer.engine, Copy)
    optimizer.step(objective(model))
    assert optimizer.engine._kept == []
    abort(optimizer, failing_at(1, objective(model), "exception"))
    assert optimizer.engine._kept == []


@pytest.mark.parametrize("engine", ["copy", "overlay", "inplace"])
def test_an_estimate_that_is_thrown_away_does_not_bring_old_weights_back(engine: str) -> None:
    x = nn.Parameter(torch.ones(5, dtype=torch.float64))
    optimizer = zoopt.ZOOptimizer([x], estimator="mezo", engine=engine)
    optimizer.estimate(lambda: x.sum())
    optimizer.settle()
    with torch.no_grad():
        x.zero_()
    optimizer.estimate(lambda: x.sum())
    optimizer.settle()
    torch.testing.assert_close(x.detach(), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("engine", ["copy", "overlay"])
def test_weights_loaded_after_an_estimate_stay(engine: str) -> None:
    """With these engines θ is exact between estimate() and step(), so that it may be written."""
    x = nn.Parameter(torch.ones(5))
    optimizer = zoopt.ZOOptimizer([x], engine=engine)
    optimizer.estimate(lambda: x.sum())
    with torch.no_grad():
        x.zero_()
    optimizer.estimate(lambda: x.sum())
    assert torch.equal(x, torch.zeros(5))


def test_estimating_twice_is_estimating_once(engine_name: str) -> None:
    ends = []
    for times in (1, 2):
        x = nn.Parameter(torch.linspace(0, 1, 9))
        optimizer = zoopt.ZOOptimizer([x], 0.1, engine=engine_name)
        for _ in range(times):
            optimizer.estimate(lambda x=x: (x**2).sum())
        optimizer.step()
        ends.append(x.detach().clone())
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("outside", [True, False], ids=["around the step", "in the closure"])
def test_autocast_sees_every_probe(engine_name: str, outside: bool) -> None:
    """Its cache of cast weights would give all probes the first one's."""
    model = nn.Linear(8, 1)
    inputs = torch.randn(16, 8)
    optimizer = zoopt.ZOOptimizer(model, 0.1, zoopt.MeZO(eps=0.3), engine=engine_name)
    records: list[zoopt.StepRecord] = []
    optimizer.recorder = records.append
    loss = lambda: (model(inputs).float() ** 2).mean()  # noqa: E731

    def cast() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss()

    if outside:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            optimizer.step(loss)
            optimizer.step(loss)
    else:
        optimizer.step(cast)
        optimizer.step(cast)
    losses = [value for record in records for value in record.losses]
    assert all(a != b for a, b in pairwise(losses))


def test_decay_of_a_pass_belongs_to_the_commit() -> None:
    """Decay applies to θ and not to the probe that is taken out in the same pass."""
    x = nn.Parameter(torch.full((4,), 2.0, dtype=torch.float64))
    slot = Slot(0, "x", x)
    engine = InPlace([slot], zoopt.Rademacher())
    decay: Mapping[int, float] = {0: 0.5}
    engine.probe(Displacement((((1, 1.0),),)), lambda: 0.0)
    engine.commit(Displacement((((2, 0.25),),)), decay)
    expected = 1.0 + 0.25 * testing.noise(zoopt.Rademacher(), (4,), 2).double()
    assert torch.equal(x.detach(), expected)
