"""Rows share forwards so that there is little work, and say what they say in company or alone."""

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

import zoopt
from zoopt.probes.population import Population
from zoopt.tasks.grouping import beginning, grouped


@pytest.fixture
def asked(tokenizer, config):
    """A model, a task, and the rows of each forward that the model will make."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    task = zoopt.Verbalizer(
        [{"text": "a", "label": "good"}],
        tokenizer=tokenizer,
        template="{text} it was",
        verbalizer={"bad": "bad", "good": "good"},
    )
    rows = []
    model.register_forward_pre_hook(
        lambda module, args, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    return model, task, rows


def texts(*lengths):
    return [{"text": "good " * length} for length in lengths]


def cost(lengths, cut, forward):
    return sum((s.stop - s.start) * lengths[s.stop - 1] + forward for s in cut)


def all_cuts(count, most):
    for sizes in itertools.product(range(1, most + 1), repeat=count):
        for used in range(1, count + 1):
            if sum(sizes[:used]) == count and all(size == 1 for size in sizes[used:]):
                ends = list(itertools.accumulate(sizes[:used]))
                yield [slice(e - s, e) for s, e in zip(sizes[:used], ends, strict=True)]


@pytest.mark.parametrize("forward", [0.0, 4.0, 30.0])
@pytest.mark.parametrize("most", [2, 6])
def test_no_other_cut_has_less_work(forward, most):
    lengths = sorted(np.random.default_rng(0).integers(1, 30, 6).tolist())
    found = grouped(lengths, most, forward)
    assert [i for s in found for i in range(s.start, s.stop)] == list(range(6))
    assert max(s.stop - s.start for s in found) <= most
    least = min(cost(lengths, cut, forward) for cut in all_cuts(6, most))
    assert cost(lengths, found, forward) == pytest.approx(least)


def test_where_tokens_cost_nothing_there_are_as_few_forwards_as_can_be():
    assert grouped([1, 2, 9, 70, 80], 2, math.inf) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert grouped([], 2, math.inf) == grouped([], 2, 1.0) == []


def test_a_forward_costs_more_where_the_engine_makes_weights_for_it():
    model = torch.nn.Linear(8, 8)
    every = sum(p.numel() for p in model.parameters())
    assert beginning(model, 0) < beginning(model, 8) < beginning(model, every) < math.inf
    with torch.device("meta"):
        assert beginning(torch.nn.Linear(8, 8), 0) == math.inf


def test_a_minibatch_of_unlike_lengths_says_what_it_says_in_one_forward(asked):
    model, task, rows = asked
    batch = texts(1, 40, 2, 41, 1, 2)
    apart = task.predict(model, batch)
    assert rows == [4, 2]
    task.padding_costs = False
    together = task.predict(model, batch)
    assert rows[2:] == [6]
    np.testing.assert_allclose(apart, together, rtol=1e-4, atol=1e-5)


def test_a_probe_shares_its_forward_with_the_same_rows_alone_and_in_company(asked):
    model, task, rows = asked
    for population in (Population(1), Population(8)):
        task.predict_each(model, texts(1, 9, 70), population)
    assert rows == [2, 1, 16, 8]


def test_an_engine_that_makes_weights_for_each_forward_gets_fewer(asked):
    model, task, rows = asked
    every = sum(p.numel() for p in model.parameters())
    for population in (Population(1), Population(1, remade=every)):
        task.predict_each(model, texts(1, 50), population)
    assert rows == [1, 1, 2]
