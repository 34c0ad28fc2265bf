"""Gaussian directions: every component standard normal, by inversion of the distribution function.

One 32-bit word gives one value: one bit its sign, the other 31 bits a tail probability t in
(0, 1/2), and |z| = −Φ⁻¹(t) = √2 · erfinv(x) with x = 1 − 2t. As in Giles's single-precision
approximation (M. Giles 2010, "Approximating the erfinv function", GPU Computing Gems), erfinv(x)/x
is a polynomial in w = −log(1 − x²): his for w < 5, and a Chebyshev fit to 1e-7 beyond; the
logarithm is Cephes' logf (S. Moshier). Only additions and multiplications are used, which all
backends round identically; their square roots and logarithms differ in the last bit. |z| reaches
6.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoopt.directions.dense import DenseDirection
from zoopt.directions.kernel.generator import BLOCK, Unit, random_word, words_of

CENTRE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
TAIL = (
    -0.000705010474,
    0.00126590184,
    9.14449811e-06,
    -0.000859834986,
    0.000670744564,
    -0.0027931621,
    0.008616391,
    -0.0214164644,
    0.0569623553,
    -0.18619617,
    1.18987736,
    3.54524341,
)
LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
SQRT_HALF_BITS = 0x3F3504F3


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Horner's scheme, highest power first."""
    value = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def _log(x: Tensor) -> Tensor:
    """Natural logarithm of positive normal fp32 numbers, to about 1 ulp."""
    bits = x.view(torch.int32)
    exponent = (bits - SQRT_HALF_BITS) >> 23
    m = (bits - (exponent << 23)).view(torch.float32) - 1.0
    square = m * m
    return (m * square * _polynomial(LOG, m) - 0.5 * square + m) + exponent.to(
        torch.float32
    ) * math.log(2.0)


def _normal(word: Tensor) -> Tensor:
    tail = ((word & 0x7FFFFFFF).to(torch.float32) + 0.5) * 2.0**-32
    w = -_log(4.0 * tail * (1.0 - tail))
    centre = _polynomial(CENTRE, w - 2.5)
    outer = _polynomial(TAIL, (w - 13.75) * (1.0 / 8.75))
    z = torch.where(w < 5.0, centre, outer) * (1.0 - 2.0 * tail) * math.sqrt(2.0)
    return torch.where(word < 0, -z, z)


def _at(offsets: Tensor, key: Tensor) -> Tensor:
    return _normal(random_word(offsets, key))


def _words(blocks: Tensor, key: Tensor) -> Tensor:
    return words_of(blocks, key, BLOCK, BLOCK)


def _spread(words: Tensor) -> Tensor:
    return _normal(words.view(-1, 32, 16))


GAUSSIAN = Unit("gaussian", _at, BLOCK, _words, _spread)


class Gaussian(DenseDirection):
    """z with independent standard normal components, as in MeZO."""

    name = "gaussian"
    unit = GAUSSIAN
