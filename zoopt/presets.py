"""Published methods as combinations of an estimator, a direction and an engine."""

from __future__ import annotations

from zoopt.estimators import NSPSA
from zoopt.interfaces import Direction


def mezo(eps: float = 1e-3, direction: str | Direction = "gaussian", n: int = 1) -> NSPSA:
    """MeZO (Malladi et al. 2023, arXiv 2305.17333): SPSA in place, restore and update fused.

    Three passes over θ per step and no memory beyond the weights. In half precision, where weights
    would drift with each probe's rounding, the engine is overlay, which does not write them. The
    paper's settings: lr 1e-6 or 1e-7 with eps 1e-3 for all parameters; lr 5e-5 or 1e-4 with eps
    1e-2 for LoRA; 20,000 steps of 16 examples.

    Args:
        eps: the perturbation scale ε.
        direction: the paper uses gaussian; rademacher costs less and has less variance.
        n: directions per step.
    """
    return NSPSA(eps=eps, n=n, direction=direction, engine="auto")


def qzo(eps: float = 1e-3, clip: float = 100.0, n: int = 1) -> NSPSA:
    """QZO (Shang et al. 2025, arXiv 2505.13430): SPSA over the scales of a quantized model.

    The integer weights are not changed; the scales (:func:`zoopt.quantization_scales`) are
    perturbed in place and kept at 0 or above by the update rule ``"projected"``. The paper's
    settings: lr 1e-7, eps 1e-3, projected gradients clipped to ±100.

    Args:
        eps: the perturbation scale ε, in units of the scales.
        clip: bound on |c|.
        n: directions per step.
    """
    return NSPSA(eps=eps, n=n, direction="gaussian", engine="inplace", clip=clip)


MeZO = mezo
