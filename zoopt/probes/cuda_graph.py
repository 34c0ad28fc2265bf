"""CUDA graphs of forward passes: recorded once, then replayed with a single launch.

A graph keeps reading the addresses that it was recorded with. So a forward is recorded only if
later probes will read the same memory, which engines declare with the contexts below.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

_DEVICES = ("cuda",)
_places: list[tuple[Hashable, str]] = []
"""(owner of the memory that operations read, None if it is temporary; why it is temporary)."""

log = logging.getLogger("zoopt")


@contextmanager
def in_memory_of(owner: Hashable) -> Iterator[None]:
    """Declares that operations inside read tensors of ``owner``, whose addresses stay the same."""
    yield from _within(owner, "")


@contextmanager
def in_passing(why: str) -> Iterator[None]:
    """Declares that operations inside read temporary tensors; ``why`` states reason and remedy."""
    yield from _within(None, why)


def _within(owner: Hashable, why: str) -> Iterator[None]:
    _places.append((owner, why))
    try:
        yield
    finally:
        _places.pop()


class CudaGraph:
    """Records a function of tensors as a CUDA graph, one per input shape, and replays it.

    With small models and short inputs a GPU is idle while Python launches its kernels one by one; a
    replay launches all of them at once. The function must do the same operations at every call and
    never wait for the GPU: no ``.item()``, no control flow on values. Parameters must keep their
    addresses in memory. The activations of each recorded shape stay allocated.

    The first call with a shape runs normally, the second records. With the ``overlay`` and
    ``batched`` engines, which create perturbed parameters for each probe, nothing is recorded, and
    one warning says so. Without a GPU the function is called directly. If recording fails, torch
    2.11 cannot draw random numbers on that GPU any more: restart the process.

    Args:
        function: takes tensors, returns tensors, without autograd.

    Example:
        >>> import torch, zoopt
        >>> model = torch.nn.Linear(3, 1)
        >>> loss = zoopt.CudaGraph(lambda x, y: (model(x) - y).square().mean())
        >>> optimizer = zoopt.ZOOptimizer(model, lr=1e-2, engine="inplace")
        >>> x, y = torch.ones(4, 3), torch.ones(4, 1)
        >>> value = optimizer.step(lambda: loss(x, y))
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._recordings: dict[Hashable, _Recording | None] = {}
        self._pool: Any = None
        self._said: set[str] = set()

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        """The function's result for the inputs.

        Raises:
            TypeError: an input is not a tensor.
            RuntimeError: the function cannot be recorded.
        """
        for value in inputs:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"zoopt.CudaGraph was called with a {type(value).__name__}, but takes tensors "
                    "only, because a recording is the same at each call. Bind other values "
                    "beforehand, as in CudaGraph(functools.partial(loss, scale=2.0))"
                )
        elsewhere = not inputs or any(value.device.type not in _DEVICES for value in inputs)
        if elsewhere or self._passes():
            return self.function(*inputs)
        owners = tuple(owner for owner, _ in _places)
        kind = inputs[0].device.type
        autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
        key = owners, autocast, tuple((x.shape, x.dtype, x.device) for x in inputs)
        if key not in self._recordings:  # this call compiles and checks kernels
            self._recordings[key] = None
            return self.function(*inputs)
        recording = self._recordings[key]
        if recording is None:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            recording = self._recordings[key] = _Recording(self.function, inputs, self._pool)
        return recording.replay(inputs)

    def _passes(self) -> bool:
        """Whether operations read temporary memory now; warns once per reason."""
        reasons = [why for owner, why in _places if owner is None]
        for why in reasons:
            if why and why not in self._said:
                self._said.add(why)
                log.warning("zoopt.CudaGraph calls its function without a graph: %s", why)
        return bool(reasons)


class _Recording:
    """A recorded graph of a function for inputs of one shape."""

    def __init__(self, function: Callable[..., Any], inputs: tuple[Tensor, ...], pool: Any) -> None:
        self._inputs = [value.clone() for value in inputs]
        self._graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # its copies, made before, will be freed
        try:
            with torch.cuda.graph(self._graph, pool=pool):
                self._returned = function(*self._inputs)
        except Exception as error:
            raise RuntimeError(
                f"zoopt.CudaGraph could not record its function: {error}. Nothing in it may wait "
                "for the GPU (.item(), .tolist(), .cpu(), an if on a tensor): return a tensor, and "
                "read it outside. If that is impossible, call the function without zoopt.CudaGraph"
            ) from error
        finally:
            torch.clear_autocast_cache()

    def replay(self, inputs: tuple[Tensor, ...]) -> Any:
        """The function's result for other inputs."""
        torch._foreach_copy_(self._inputs, list(inputs))
        self._graph.replay()
        return tree_map_only(Tensor, torch.clone, self._returned)
