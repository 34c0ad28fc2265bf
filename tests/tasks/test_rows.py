"""Tasks of several rows an example: a population's probes get what each gets alone."""

import copy

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaForCausalLM, LlamaModel

import zoopt

TEXTS = ["a b", "c d e f a", "d", "fine a b"]


def multiple_choice(tokenizer, config, batch_size):
    choices = [["good", "bad fine"], ["fine it was", "a", "b good"], ["bad", "c d"], ["a", "b"]]
    rows = [{"text": t, "choices": c, "label": 1} for t, c in zip(TEXTS, choices, strict=True)]
    template = "{text} it was {choice}"
    task = zoopt.MultipleChoice(rows, tokenizer=tokenizer, template=template, batch_size=batch_size)
    return task, LlamaForCausalLM(config), "cross_entropy"


def similarity(tokenizer, config, batch_size):
    rows = [{"a": t, "b": "it was " + t[:1], "label": i / 3} for i, t in enumerate(TEXTS)]
    task = zoopt.Similarity(rows, tokenizer=tokenizer, columns=("a", "b"), batch_size=batch_size)
    return task, LlamaModel(config), "mse"


def masked(tokenizer, config, batch_size):
    task = zoopt.MaskedVerbalizer(
        [{"text": text, "label": ["good", "bad"][i % 2]} for i, text in enumerate(TEXTS)],
        tokenizer=tokenizer,
        template="{text} was {mask}",
        verbalizer={"bad": "bad", "good": "good"},
        batch_size=batch_size,
    )
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = BertConfig(vocab_size=16, num_attention_heads=2, **shape)
    return task, BertForMaskedLM(config), "cross_entropy"


@pytest.mark.parametrize("batch_size", [32, 3])
@pytest.mark.parametrize("make", [multiple_choice, similarity, masked])
def test_a_population_has_the_losses_of_its_probes(masking_tokenizer, config, make, batch_size):
    config = copy.deepcopy(config)
    config.vocab_size = len(masking_tokenizer)
    losses = {}
    for engine in ("overlay", "batched"):
        torch.manual_seed(0)
        task, model, name = make(masking_tokenizer, config, batch_size)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        objective = zoopt.TaskObjective(task, zoopt.get_objective(name))
        optimizer = zoopt.ZOOptimizer(
            model.eval(),
            0.0,
            zoopt.NSPSA(eps=0.1, n=3),
            "lowrank",
            engine,
            seed=1,
            params=lambda name, tensor: "layers." in name or "layer." in name,
        )
        records = []
        optimizer.recorder = records.append
        sizes = []

        def closure(population, model=model, task=task, objective=objective, sizes=sizes):
            sizes.append(population.size)
            return objective.values(model, task.train, population)

        optimizer.step(closure)
        losses[engine] = torch.tensor(records[0].losses)
        assert max(sizes) == (6 if engine == "batched" else 1)
    assert losses["overlay"].std() > 1e-3
    torch.testing.assert_close(losses["batched"], losses["overlay"], rtol=1e-5, atol=1e-6)
