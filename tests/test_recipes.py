"""Published settings: plausible, with a source, and shown as they are."""

import copy

import peft
import pytest
import torch

import zoopt
from zoopt import recipes
from zoopt.cli import main
from zoopt.tuning.making import unusual_rate
from zoopt.tuning.settings import Settings


@pytest.mark.parametrize("name", sorted(zoopt.RECIPES))
def test_a_recipe_is_whole(name):
    recipe = zoopt.RECIPES[name]
    assert all(0 < lr < 1 for lr in recipe.lr)
    assert recipe.estimator().eps == recipe.eps
    assert "2305.17333" in recipe.source or "README" in recipe.source
    # A probe moves θ by ε|z|, an update by lr|c||z|: adapters stand more of both.
    whole = zoopt.RECIPES[f"{name.split('/')[0]}/full"]
    assert recipe.eps >= whole.eps
    assert max(recipe.lr) >= max(whole.lr)


def test_the_command_lists_them(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recipes"]) == 0
    told = capsys.readouterr().out
    for name, recipe in zoopt.RECIPES.items():
        (line,) = [line for line in told.splitlines() if line.split()[:1] == [name]]
        assert f"{recipe.eps:g}" in line.split()
        assert f"{recipe.lr[0]:g}" in line.split()


class Generating(torch.nn.Linear):
    def can_generate(self):
        return True


def test_a_model_gets_the_recipe_of_its_kind():
    model = Generating(2, 2)
    assert recipes.recipe_for(model) is zoopt.RECIPES["opt/full"]
    adapted = copy.copy(model)
    adapted.peft_config = {"default": type("Config", (), {"peft_type": "LORA"})()}
    assert recipes.recipe_for(adapted) is zoopt.RECIPES["opt/full"], "PEFT's types are enums"
    assert recipes.recipe_for(torch.nn.Linear(2, 2)) is zoopt.RECIPES["roberta/full"]


def test_the_default_rate_is_told_to_be_none_for_an_adapter():
    model = Generating(2, 2)
    adapted = copy.copy(model)
    adapted.peft_config = {"default": peft.LoraConfig()}
    said = unusual_rate(adapted, Settings())
    assert "lr 1e-06 is for tuning all parameters" in said
    assert "lr 0.0001 or 5e-05 with eps 0.01" in said
    assert not unusual_rate(adapted, Settings(lr=1e-5))
    assert not unusual_rate(adapted, Settings(lr="auto", eps="auto"))
    assert not unusual_rate(model, Settings())
