"""MeZO as its paper states it: Malladi et al. 2023, arXiv 2305.17333, algorithm 1.

Four passes over θ: to θ + εz, to θ − εz, back to θ, and the update. Each resets torch's random
state to the step's seed and draws z tensor by tensor.
"""

import random

import torch


class FourPasses:
    """θ is the list of parameters."""

    def __init__(self, parameters, lr, eps):
        self.parameters, self.lr, self.eps = list(parameters), lr, eps
        self.seeds = random.Random(0)

    @torch.no_grad()
    def add(self, seed, factor):
        """θ ← θ + factor · z(seed)."""
        torch.manual_seed(seed)
        for theta in self.parameters:
            z = torch.normal(0.0, 1.0, theta.shape, dtype=theta.dtype, device=theta.device)
            theta.add_(z, alpha=factor)

    def step(self, loss):
        """One step; returns the seed and the projected gradient, of which the update is made."""
        seed = self.seeds.getrandbits(32)
        self.add(seed, self.eps)
        plus = loss()
        self.add(seed, -2 * self.eps)
        minus = loss()
        self.add(seed, self.eps)
        projected_gradient = float(plus - minus) / (2 * self.eps)  # waits for a GPU, once
        self.add(seed, -self.lr * projected_gradient)
        return seed, projected_gradient
