"""Standard normal numbers, by Box and Muller (1958).

Two 32-bit words give two values, z = √(−2 ln u) · (cos φ, sin φ): one word is u, the other a
sign and the angle φ in [−π/2, π/2). The values belong to elements that are half a block apart.
Logarithm, sine and cosine are minimax polynomials with errors of 2e-7 or less; additions,
multiplications and square roots are rounded alike by all backends. |z| reaches 6.7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoopt.directions.kernel.generator import HALF_BLOCK, SIGN_BIT, Unit, random_word

LOG = (
    0.20213792126846228,
    -0.32445161832784625,
    0.3450165942108754,
    -0.3980033082718705,
    0.4993981811968701,
    -0.6667011789393431,
    1.0000073024698388,
    -1.9999998906189385,
)
"""−2 ln(1 + m) / m for m from √½ − 1 to √2 − 1."""
SIN = (
    0.00015167853192123203,
    -0.00467415749630844,
    0.07968992686681506,
    -0.6459637612915293,
    1.570796320091999,
)
"""sin(πx/2) / x in x², for x from −1 to 1."""
COS = (
    0.0008581906198949131,
    -0.020810627520196582,
    0.25365074463585807,
    -1.2336982146688984,
    0.9999999534666709,
)
"""cos(πx/2) in x², for x from −1 to 1."""
SQRT_HALF_BITS = 0x3F3504F3


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Horner's scheme, highest power first."""
    value = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def _square_root(x: Tensor) -> Tensor:
    """√x of fp32 numbers, correctly rounded, which torch's is not on a CPU."""
    if x.device.type != "cpu":
        return torch.sqrt(x)
    return torch.sqrt(x.to(torch.float64)).to(torch.float32)


def _minus_twice_log(x: Tensor) -> Tensor:
    """−2 ln x of positive normal fp32 numbers."""
    bits = x.view(torch.int32)
    exponent = (bits - SQRT_HALF_BITS) >> 23
    m = (bits - (exponent << 23)).view(torch.float32) - 1.0
    return m * _polynomial(LOG, m) + exponent.to(torch.float32) * (-2.0 * math.log(2.0))


def _pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The bits of two independent values, as int32, from two words."""
    u = ((first & 0x7FFFFFFF).to(torch.float32) + 0.5) * 2.0**-31
    radius = _square_root(_minus_twice_log(u))
    x = (second << 1).to(torch.float32) * 2.0**-31
    square, sign = x * x, second & SIGN_BIT
    cosine = _polynomial(COS, square) * radius
    sine = _polynomial(SIN, square) * (x * radius)
    return cosine.view(torch.int32) ^ sign, sine.view(torch.int32) ^ sign


def _at(offsets: Tensor, key: Tensor) -> Tensor:
    first = random_word(offsets & ~HALF_BLOCK, key)
    cosine, sine = _pair(first, random_word(offsets | HALF_BLOCK, key))
    return torch.where((offsets & HALF_BLOCK) == 0, cosine, sine).view(torch.float32)


GAUSSIAN = Unit("gaussian", _at)
