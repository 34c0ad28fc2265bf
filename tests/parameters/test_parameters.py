"""Which parameters are tuned, by name: all of a kind, the last layers, parts with own settings."""

import pytest
import torch
from torch import nn

import zoopt


def tower():
    """Three layers with norms, as transformers name them."""
    layer = [nn.ModuleDict({"dense": nn.Linear(2, 2), "norm": nn.LayerNorm(2)}) for _ in range(3)]
    return nn.ModuleDict({"layers": nn.ModuleList(layer), "head": nn.Linear(2, 2)})


def names(params):
    optimizer = zoopt.ZOOptimizer(tower(), params=params)
    return [slot.name for slot in optimizer.slots]


def test_bitfit_is_a_pattern():
    found = names("*.bias")
    assert len(found) == 7
    assert all(name.endswith("bias") for name in found)


def test_tied_parameters_have_all_their_names():
    model = tower()
    model["tail"] = nn.Linear(2, 2)
    model["tail"].weight = model["head"].weight
    for params in (["head.*", "tail.weight"], ["tail.weight", "head.weight"]):
        optimizer = zoopt.ZOOptimizer(model, params=params)
        assert optimizer.slots[0].tensor is model["head"].weight


def test_a_pattern_of_a_list_that_chooses_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"'lyers.\*' in params chose no trainable parameter"):
        names(["head.*", "lyers.*"])


def test_the_last_layers_are_patterns():
    found = names(["layers.[12].*", "head.*"])
    assert len(found) == 2 * 4 + 2
    assert not any(name.startswith("layers.0.") for name in found)


def test_parts_have_their_own_settings():
    params = {"*norm*": {"lr": 0.5, "eps": 0.25}, "layers.*": {"weight_decay": 0.125}, "head.*": {}}
    model = tower()
    optimizer = zoopt.ZOOptimizer(model, lr=0.1, eps=0.01, params=params)
    parts = [
        (g["lr"], g["eps"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups
    ]
    assert parts == [(0.5, 0.25, 0.0, 6), (0.1, 0.01, 0.125, 6), (0.1, 0.01, 0.0, 2)]
    assert optimizer.model is model, "its modes and buffers are looked after"


def test_parts_move_by_their_own_rates():
    model = tower()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = zoopt.ZOOptimizer(
        model, params={"head.weight": {"lr": 0.0}, "head.bias": {"lr": 1.0}}
    )
    optimizer.step(lambda: model["head"](torch.ones(2)).sum())
    moved = {n for n, p in model.named_parameters() if (p - before[n]).abs().max() > 1e-3}
    assert moved == {"head.bias"}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"nothing.*": {}}, "params\\['nothing.\\*'\\] chose no trainable parameter"),
        ({"*": {}, "head.*": {}}, "params\\['head.\\*'\\] chose no trainable"),
        ({"*": {"learning_rate": 0.1}}, "'learning_rate'; expected lr, eps"),
    ],
)
def test_a_part_that_cannot_be_meant_is_refused(params, said):
    with pytest.raises(ValueError, match=said):
        names(params)


def test_parts_by_name_need_the_module():
    with pytest.raises(TypeError, match="needs a module"):
        zoopt.ZOOptimizer(list(tower().parameters()), params={"*": {}})
