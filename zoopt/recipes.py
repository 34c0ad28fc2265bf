"""Published hyperparameters: learning rate and ε by kind of model and tuned part.

>>> RECIPES["opt/lora"].eps
0.01
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from zoopt.estimators import ZOEstimator
from zoopt.presets import mezo

PAPER = "MeZO paper (arXiv 2305.17333), appendix D"
SCRIPT = "MeZO paper's code, medium_models/README.md"


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a published run.

    Attributes:
        about: which parameters of which model.
        lr: the learning rates that were tried; each is reported to work in some run.
        eps: the perturbation scale ε.
        weight_decay: weight decay.
        batch_size: examples per step.
        steps: number of updates.
        source: where the numbers come from.
    """

    about: str
    lr: tuple[float, ...]
    eps: float
    weight_decay: float
    batch_size: int
    steps: int
    source: str

    def estimator(self) -> ZOEstimator:
        """MeZO with the recipe's ε."""
        return mezo(eps=self.eps)


RECIPES: dict[str, Recipe] = {
    "opt/full": Recipe(
        "all parameters of OPT, 13 to 66 billion", (1e-6, 1e-7), 1e-3, 0.0, 16, 20_000, PAPER
    ),
    "opt/lora": Recipe(
        "LoRA of q and v, rank 8, alpha 16", (1e-4, 5e-5), 1e-2, 0.0, 16, 20_000, PAPER
    ),
    "opt/prefix": Recipe(
        "5 prefix tokens from real activations", (1e-2, 1e-3), 1e-1, 0.0, 16, 20_000, PAPER
    ),
    "opt/full/f1": Recipe(
        "all parameters, F1 of answers (SQuAD)", (1e-6, 5e-6, 1e-5), 1e-3, 0.0, 16, 20_000, PAPER
    ),
    "opt/prefix/f1": Recipe(
        "5 prefix tokens, F1 of answers (SQuAD)", (1e-1, 5e-2, 1e-2), 1e-1, 0.0, 16, 20_000, PAPER
    ),
    "roberta/full": Recipe(
        "all parameters of RoBERTa-large", (1e-7, 1e-6, 1e-5), 1e-3, 0.0, 64, 100_000, PAPER
    ),
    "roberta/lora": Recipe(
        "LoRA, rank 8, alpha 16", (1e-4,), 1e-3, 0.1, 64, 100_000, f"{SCRIPT}; decay: {PAPER}"
    ),
    "roberta/prefix": Recipe(
        "5 prefix tokens from real activations", (1e-2,), 1e-1, 0.0, 64, 100_000, SCRIPT
    ),
}
"""By model and tuned part, and by objective if it is not the loss."""


def recipe_for(model: torch.nn.Module) -> Recipe:
    """The nearest published recipe for a model, by its kind and its PEFT adapter.

    Models that generate text use OPT's recipes, all others RoBERTa's. Adapters without a published
    recipe, such as prompt tuning, use the one for all parameters.

    Example:
        >>> recipe_for(torch.nn.Linear(2, 2)).about
        'all parameters of RoBERTa-large'
    """
    adapters: dict[str, Any] = getattr(model, "peft_config", {})
    kinds = {str(getattr(config.peft_type, "value", "")) for config in adapters.values()}
    part = {"LORA": "lora", "PREFIX_TUNING": "prefix"}.get(kinds.pop(), "full") if kinds else "full"
    return RECIPES[f"{_family(model)}/{part}"]


def eps_of_parts(model: torch.nn.Module) -> dict[str, dict[str, float]] | None:
    """Parameter groups with their own ε, in the form of ``params``; None if one ε suffices.

    The modules that PEFT tunes in addition to an adapter (``modules_to_save``) are the model's own.
    """
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    beside = [name for name in names if ".modules_to_save." in name]
    adapter, whole = recipe_for(model), RECIPES[f"{_family(model)}/full"]
    if not beside or len(beside) == len(names) or adapter.eps == whole.eps:
        return None
    return {"*.modules_to_save.*": {"eps": whole.eps}, "*": {"eps": adapter.eps}}


def _family(model: torch.nn.Module) -> str:
    can_generate = getattr(model, "can_generate", None)
    return "opt" if can_generate is not None and can_generate() else "roberta"
