"""Outputs of probes that are only compared: each as it was when its probe returned it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_map


def snapshot(output: Any) -> Any:
    """A copy of the tensors and arrays in an output, and of the containers around them.

    They may be θ itself, a view of it, or a buffer that the closure fills again at the next probe.
    """
    return tree_map(_copied, output)


def distinct(outputs: Sequence[Any]) -> Sequence[Any]:
    """The outputs, none of which is the same object as another.

    Objects that are equal by value (texts, numbers) may be, and so may None: a person has seen
    what there was to see.

    Raises:
        TypeError: two are one object, which would be compared with itself.

    Example:
        >>> distinct(["yes", "yes"])
        ['yes', 'yes']
    """
    seen: set[int] = set()
    for output in outputs:
        if id(output) in seen and not _is_value(output):
            raise TypeError(
                f"the closure returned the same {type(output).__name__} at two probes, and compare "
                "would see it twice as the last probe left it: return what it says there, such as "
                "model(inputs), or a copy"
            )
        seen.add(id(output))
    return outputs


def _is_value(output: Any) -> bool:
    """Whether it is equal to others by what it says, and so cannot change: it has its own hash."""
    hashed = isinstance(output, Hashable) and type(output).__hash__ is not object.__hash__
    return hashed or output is None


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf
