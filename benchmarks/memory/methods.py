"""The methods whose memory is measured: each takes (model, batch), gives a step and its state."""

from functools import partial

import torch

import zoopt
from benchmarks.batches import Batch, last_token_loss, last_token_losses

LR = 1e-9


@torch.no_grad()
def _value(model, batch):
    return last_token_loss(model, batch).item()


def forward(model, batch):
    """What any method needs: the model, and a forward pass."""
    return lambda: _value(model, batch), list


def zeroth_order(model, batch, **options):
    """A step of ZOOptimizer, with MeZO's two probes."""
    optimizer = zoopt.ZOOptimizer(model, LR, direction="rademacher", **options)
    return lambda: optimizer.step(lambda: _value(model, batch)), partial(_state, optimizer)


def batched(model, batch):
    """The same with both probes in one forward, which low-rank directions allow."""
    optimizer = zoopt.ZOOptimizer(model, LR, direction="lowrank", engine="batched")

    @torch.no_grad()
    def losses(population):
        rows = last_token_losses(model, Batch(*population.expand(tuple(batch))))
        return population.per_probe(rows).mean(1)

    return lambda: optimizer.step(losses), partial(_state, optimizer)


def backpropagation(model, batch):
    """A step of AdamW on all trainable parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, LR)

    def step():
        last_token_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, partial(_state, optimizer)


def lora(model, batch):
    """The same on adapters of the queries and values (Hu et al. 2021, arXiv 2106.09685)."""
    import peft

    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return backpropagation(model, batch)


def _state(optimizer):
    held = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in held if isinstance(value, torch.Tensor)]


METHODS = {
    "forward pass alone": forward,
    "MeZO, in-place": partial(zeroth_order, engine="inplace"),
    "MeZO, overlay": partial(zeroth_order, engine="overlay"),
    "MeZO, copy": partial(zeroth_order, engine="copy"),
    "MeZO, batched": batched,
    "MeZO with momentum": partial(zeroth_order, engine="inplace", update="momentum"),
    "MeZO with Adam": partial(zeroth_order, engine="inplace", update="adam"),
    "backpropagation, LoRA, AdamW": lora,
    "backpropagation, AdamW": backpropagation,
}
