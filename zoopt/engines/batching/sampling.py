"""Random choices that the probes of a population share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoopt.engines.batching.arguments import named
from zoopt.probes.population import Population


class Noise:
    """Noise that all probes of a population share, from one draw of torch's global generator."""

    def __init__(self) -> None:
        self._generator: torch.Generator | None = None

    def exponential(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Independent Exp(1) numbers, new ones at each call."""
        if self._generator is None:
            seed = int(torch.randint(1 << 62, ()))
            self._generator = torch.Generator(device).manual_seed(seed)
        return torch.empty(*shape, device=device).exponential_(generator=self._generator)


def shared_choice(
    population: Population, noise: Noise, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """torch.multinomial with the same noise for every probe: the argmax of p / Exp(1).

    All rows of the same example use the same noise at each position, even if the texts of a pair
    end at different lengths.
    """
    weights, samples = named(("input", "num_samples"), args, kwargs)
    if samples != 1 or weights.ndim != 2 or weights.shape[0] != population.rows:
        raise NotImplementedError(
            f"engine='batched' draws one sample for each of {population.rows} rows, not "
            f"{samples} from weights of shape {tuple(weights.shape)}: use engine='overlay'"
        )
    shape = (population.rows // population.size, weights.shape[1])
    shared = noise.exponential(shape, weights.device).repeat(population.size, 1)
    chosen: Tensor = (weights.float() / shared).argmax(-1, keepdim=True)
    return chosen
