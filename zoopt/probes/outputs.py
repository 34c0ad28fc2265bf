"""Outputs of probes that are only compared, kept as they were when the probe returned them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_map


def snapshot(output: Any) -> Any:
    """A copy of an output: of its tensors and arrays and the containers that hold them.

    They may be θ itself, a view of it, or a buffer that the closure reuses at the next probe.
    """
    return tree_map(_copied, output)


def distinct(outputs: Sequence[Any]) -> Sequence[Any]:
    """The outputs, after a check that no two of them are the same object.

    Immutable values (texts, numbers) and None are exempt: they cannot have changed since the probe.

    Raises:
        TypeError: two are the same object, which would be compared with itself.

    Example:
        >>> distinct(["yes", "yes"])
        ['yes', 'yes']
    """
    seen: set[int] = set()
    for output in outputs:
        if id(output) in seen and not _is_value(output):
            raise TypeError(
                f"the closure returned the same {type(output).__name__} at two probes, so compare "
                "would see the last probe's state twice: return the output of that probe, such as "
                "model(inputs), or a copy"
            )
        seen.add(id(output))
    return outputs


def _is_value(output: Any) -> bool:
    """Whether it is None or hashable by value, and therefore immutable."""
    hashed = isinstance(output, Hashable) and type(output).__hash__ is not object.__hash__
    return hashed or output is None


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf
