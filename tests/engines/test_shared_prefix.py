"""What precedes the first tuned parameter is computed once a step; the numbers stay the same."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoopt
from zoopt.engines.shared_prefix import SharedPrefix


class Counted(nn.Linear):
    """A layer that counts its forwards."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def tower(layers=4):
    torch.manual_seed(0)
    return nn.Sequential(*(Counted(4, 4) for _ in range(layers)))


def losses_of(model, closure, engine="overlay", steps=2, **options):
    optimizer = zoopt.ZOOptimizer(
        model, 0.1, zoopt.NSPSA(eps=0.1, n=2), engine=engine, seed=1, **options
    )
    records = []
    optimizer.recorder = records.append
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    for _ in range(steps):
        optimizer.step(lambda: closure(model))
    return [loss for record in records for loss in record.losses]


def same_with_and_without(make, closure, **options):
    """A model after steps that gave the same numbers, bit for bit, with and without sharing."""
    model, other = make(), make()
    shared = losses_of(model, closure, **options)
    assert shared == losses_of(other, closure, share_prefix=False, **options)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    return model


def counts(model):
    return [layer.calls for layer in model if isinstance(layer, Counted)]


def test_layers_below_the_first_tuned_one_run_once_a_step(engine_name):
    x = torch.randn(3, 4)
    model = same_with_and_without(
        tower, lambda m: m(x).square().mean(), engine=engine_name, params="2.*"
    )
    assert counts(model) == [2, 2, 8, 8]
    assert all("forward" not in vars(layer) for layer in model)


def test_every_forward_of_a_closure_shares_its_own_inputs():
    batches = torch.randn(2, 3, 4)
    model = same_with_and_without(
        tower, lambda m: sum(m(x).square().mean() for x in batches), params="2.*"
    )
    assert counts(model) == [4, 4, 16, 16]


def test_a_forward_on_what_a_tuned_one_gave_is_computed_anew():
    x = torch.randn(3, 4)
    model = same_with_and_without(tower, lambda m: m(m(x)).square().mean(), params="2.*")
    assert counts(model) == [2 + 8, 2 + 8, 16, 16]


def test_other_inputs_are_computed_anew():
    x, calls = torch.randn(2, 3, 4), []

    def closure(m):
        calls.append(0)
        return m(x[len(calls) % 2]).square().mean()

    model = same_with_and_without(tower, closure, params="2.*")
    assert counts(model)[0] == 2 * (1 + 2), "the second and fourth probe have other inputs"


def test_an_input_that_the_closure_writes_on_is_another_input():
    inputs = {}

    def closure(m):
        x = inputs.setdefault(m, torch.ones(3, 4))
        x.add_(0.25)
        return m(x).square().mean()

    model = same_with_and_without(tower, closure, params="2.*")
    assert counts(model)[0] == 8


def test_nothing_is_shared_where_the_first_layer_is_tuned():
    x = torch.randn(3, 4)
    model = same_with_and_without(tower, lambda m: m(x).square().mean(), params="0.*")
    assert counts(model) == [8, 8, 8, 8]


class Tricky(nn.Module):
    """One trap, between an untuned layer below and a tuned one above."""

    def __init__(self, trap: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.above, self.trap = Counted(4, 4), nn.Linear(4, 4), trap
        self.view = self.above.weight.T

    def forward(self, x: Tensor) -> Tensor:
        if self.trap == "uses a tuned tensor elsewhere":
            x = x * self.above.bias
        if self.trap == "uses a view of a tuned tensor":
            x = x @ self.view
        y = self.below(x)
        if self.trap == "writes on what a module returned":
            y.mul_(0.5)
        return self.above(y)


class Noisy(Counted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn_like(x)


class NoisyByNumpy(Counted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + np.random.randn()  # noqa: NPY002


class NoisyByPython(Counted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + random.gauss()


class Writing(Counted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.add_(1.0))


class Remembering(Counted):
    def forward(self, x: Tensor, memory: object = None) -> Tensor:
        memory.append(x)
        return super().forward(x)


@pytest.mark.parametrize(
    "trap",
    [
        "uses a tuned tensor elsewhere",
        "uses a view of a tuned tensor",
        "writes on what a module returned",
    ],
)
def test_a_trap_costs_the_sharing_and_never_the_numbers(trap):
    x = torch.randn(3, 4)
    model = same_with_and_without(
        lambda: Tricky(trap), lambda m: m(x).square().mean(), engine="inplace", params="above.*"
    )
    assert model.below.calls >= 6


@pytest.mark.parametrize("kind", [Noisy, NoisyByNumpy, NoisyByPython, Writing])
def test_a_module_with_side_effects_is_not_spared(kind):
    x = torch.randn(3, 4)

    def make():
        torch.manual_seed(0)
        return nn.Sequential(kind(4, 4), nn.Linear(4, 4))

    def closure(m):
        torch.manual_seed(5)
        other = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return (m(x.clone()) + other).square().mean()

    model = same_with_and_without(make, closure, params="1.*")
    assert model[0].calls == 8


class Recurrent(nn.Module):
    """The layer below adds what the layer above gave the last time."""

    class Below(Counted):
        state = None

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if self.state is None else x + self.state)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.above = self.Below(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.above(self.below(x))
        self.below.state = y
        return y


def test_a_module_that_keeps_what_a_tuned_one_gave_is_not_spared():
    x = torch.randn(3, 4)

    def closure(m):
        m.below.state = None
        return (m(x) + m(x)).square().mean()

    model = same_with_and_without(Recurrent, closure, params="above.*")
    assert model.below.calls < 16  # the first of a closure's two is spared


def test_a_module_that_is_given_something_to_write_to_is_not_spared():
    below, above, x = Remembering(4, 4), nn.Linear(4, 4), torch.randn(3, 4)
    memory = []

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = below, above

        def forward(self, x: Tensor) -> Tensor:
            return self.above(self.below(x, memory=memory))

    losses_of(Model(), lambda m: m(x).square().mean(), params="above.*")
    # An empty list is plain; once something is in it that changed, its call is another call.
    assert below.calls == 8


def test_a_module_with_hooks_is_not_spared():
    model, x, seen = tower(), torch.randn(3, 4), []
    model[0].register_forward_hook(lambda module, args, out: seen.append(out))
    losses_of(model, lambda m: m(x).square().mean(), params="2.*")
    assert len(seen) == 8
    assert counts(model) == [8, 2, 8, 8]


def test_an_error_in_the_closure_puts_the_forwards_back():
    model, x = tower(), torch.randn(3, 4)
    optimizer = zoopt.ZOOptimizer(model, engine="overlay", params="2.*")

    def closure():
        model(x)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert all("forward" not in vars(layer) for layer in model)
    assert optimizer._prefix.calls == 0
    optimizer.step(lambda: model(x).mean())


def test_a_module_whose_forward_is_replaced_gets_its_replacement_back():
    model, x = tower(), torch.randn(3, 4)
    original = model[0].forward
    model[0].forward = lambda x: original(x) * 2
    mine = model[0].forward
    same = losses_of(model, lambda m: m(x).square().mean(), params="2.*")
    assert model[0].forward is mine
    assert len(same) == 8


def test_a_language_model_shares_its_lower_layers_and_generation_does_not():
    from transformers import LlamaConfig, LlamaForCausalLM

    def make():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=61, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()

    model = make()
    ids = torch.randint(0, 61, (3, 7))
    prefix = SharedPrefix(model, zoopt.ZOOptimizer(model, params="*.3.*").slots)
    with prefix.step():
        for _ in range(2):
            with prefix.probe(), torch.no_grad():
                model(ids, use_cache=False)
        assert prefix.calls == 4, "the embedding and three layers"
    same_with_and_without(
        make, lambda m: m(ids, use_cache=False).logits.square().mean(), params="*.3.*"
    )

    def generated(m):
        return m.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0).float().mean()

    same_with_and_without(make, generated, params="*.3.*", steps=1)
