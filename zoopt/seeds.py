"""Seeds: how a key for every direction, tensor and offset is derived from a run's seed.

Everything here runs on the host, in exact 64-bit arithmetic.

>>> direction_seeds(run_seed=0, step=0, n=2) != direction_seeds(run_seed=1, step=0, n=2)
True
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Words = TypeVar("Words", int, NDArray[Any])
"""A 64-bit word, or an array of them; the arithmetic is the same."""

MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FEW = 16
"""Number of keys up to which Python computes them faster than numpy."""


def mix64(x: Words) -> Words:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): a bijection of 64-bit words."""
    x = x & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def fold(*words: int) -> int:
    """A 64-bit hash of a sequence of integers; the state is mixed after each of them."""
    h = _GOLDEN
    for word in words:
        h = _entered(h, _mixed(word))
    return h


def _entered(h: Words, mixed: Words) -> Words:
    return mix64((h ^ mixed) * 3 + _GOLDEN)


@functools.lru_cache(maxsize=1 << 12)
def _mixed(word: int) -> int:
    """Cached, since the keys of a step consist of few words: its seeds and tensor indices."""
    return mix64(word + _GOLDEN)


def direction_seeds(run_seed: int, step: int, n: int) -> tuple[int, ...]:
    """The n direction seeds of a step: 64 bits each, derived from the run's seed and step alone.

    Args:
        run_seed: any integer, taken mod 2⁶⁴. Run seeds that differ mod 2⁶⁴ share no direction.
        step: number of updates applied so far.
        n: number of directions of the estimator.

    Example:
        >>> direction_seeds(-1, step=0, n=1) == direction_seeds(2**64 - 1, step=0, n=1)
        True
    """
    return tuple(fold(run_seed, step, k) for k in range(n))


def as_int32(word: int) -> int:
    """The signed 32-bit integer with the same low 32 bits (torch has no full uint32)."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


@functools.lru_cache(maxsize=1 << 14)
def key_words(seed: int, *path: int) -> tuple[int, int]:
    """The generator's key, two signed 32-bit words, for a seed and a path (tensor, segment, …)."""
    key = fold(seed, *path)
    return as_int32(key), as_int32(key >> 32)


def key_table(
    seeds: Sequence[int], paths: Sequence[tuple[int, ...]] | NDArray[np.uint64]
) -> NDArray[np.int32]:
    """:func:`key_words` of some seeds and paths; many of them in vectorized arithmetic.

    Args:
        seeds: S of them.
        paths: P of them, of equal length.

    Returns:
        Shape (P, S, 2).

    Example:
        >>> key_table([7, 8], [(0, 1), (2, 3)])[1, 0].tolist() == list(key_words(7, 2, 3))
        True
    """
    if len(seeds) * len(paths) <= _FEW:
        each = [[key_words(seed, *map(int, path)) for seed in seeds] for path in paths]
        return np.array(each, np.int32).reshape(len(paths), len(seeds), 2)
    first = np.asarray([[seed & MASK64 for seed in seeds]], np.uint64)
    h = _entered(np.full_like(first, _GOLDEN), mix64(first + _GOLDEN))
    for word in np.asarray(paths, np.uint64).T:
        h = _entered(h, mix64(word[:, None] + _GOLDEN))
    return np.stack([h, h >> 32], -1).astype(np.uint32).view(np.int32)
