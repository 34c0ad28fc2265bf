"""The kernel's source: functions of plain torch operations, run eagerly or compiled.

``torch.compile`` turns them into fused C++ on CPU and Triton on CUDA; eager execution, in chunks
that stay in cache, is the reference and the fallback. On CPU the two agree bit for bit, because
every operation is exact or correctly rounded and Inductor compiles C++ with contraction off.

The words that z is generated from are computed before, by a source of their own: 16 words for a
block of 512 elements if a family gets 32 values from a word, or one per element. So the compiler
has no reason to store intermediate results in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torch import Tensor

from zoopt.directions.kernel import compilation
from zoopt.directions.kernel.generator import Unit
from zoopt.directions.kernel.rounding import noise_of, stochastic_round

_CHUNK, _GPU_CHUNK = 1 << 15, 1 << 23
"""Elements at once in eager execution: few enough for a CPU's cache; on a GPU, for few launches."""


def run(
    name: str,
    source: compilation.Source,
    compiled: bool,
    rows: Sequence[Tensor],
    constants: Sequence[Tensor] = (),
    narrow: bool = False,
) -> None:
    """Runs a source on tensors with the same number of rows; it writes to some of them.

    Args:
        name: identifies the kernel; see :func:`compilation.kernel`.
        source: takes the constants and the rows.
        compiled: whether to compile it now; otherwise when it has run eagerly for long.
        rows: tensors with the same number of rows.
        constants: tensors that are the same for all rows.
        narrow: see :func:`compilation.kernel`.
    """
    on_cpu = rows[0].device.type == "cpu"
    if compiled or (on_cpu and compilation.due(name)):
        kernel = compilation.kernel(name, source, constants, rows, narrow)
        if kernel is not None:
            kernel(*constants, *rows)
            return
    widest = max(part[0].numel() for part in rows)
    step = max(1, (_CHUNK if on_cpu else _GPU_CHUNK) // widest)
    with compilation.eagerly(name):
        for start in range(0, rows[0].shape[0], step):
            source(*constants, *(part[start : start + step] for part in rows))


@functools.cache
def sum_of(unit: Unit, stochastic: bool, in_place: bool) -> compilation.Source:
    """The source that adds a family's z, made from words (n, K, W), to blocks (n, 32, 16)."""

    def add_to_blocks(coefficients: Tensor, blocks: Tensor, words: Tensor, *noise: Tensor) -> None:
        add_into(coefficients, blocks, blocks, words, *noise)

    def add_into(
        coefficients: Tensor, into: Tensor, blocks: Tensor, words: Tensor, *noise: Tensor
    ) -> None:
        acc = blocks.to(coefficients.dtype) * coefficients[0]
        for k in range(words.shape[1]):
            z = unit.spread(words[:, k])
            acc = acc + z.to(coefficients.dtype) * coefficients[k + 1]
        if stochastic:
            acc = stochastic_round(acc, blocks.dtype, noise_of(*noise))
        into.copy_(acc)

    return add_to_blocks if in_place else add_into


@functools.cache
def words_by(words_of: Callable[[Tensor, Tensor], tuple[Tensor, ...]]) -> compilation.Source:
    """The source that writes the words of blocks, in parts, given addresses (m, 3)."""

    def write_words(addresses: Tensor, *parts: Tensor) -> None:
        made = words_of(addresses[:, :1], addresses[:, 1:].T.unsqueeze(2))
        for part, words in zip(parts, made, strict=True):
            part.copy_(words)

    return write_words


@functools.cache
def z_of(unit: Unit) -> compilation.Source:
    """The source that writes a family's z, shape (n, 32, 16), given its words (n, W)."""

    def write_z(z: Tensor, words: Tensor) -> None:
        z.copy_(unit.spread(words))

    return write_z
