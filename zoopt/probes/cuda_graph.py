"""CUDA graphs of forward passes: recorded once, then replayed with a single launch.

A graph keeps reading the addresses that it was recorded with. So a forward is recorded only where
later probes will read the same memory, which the surroundings of a probe declare here.
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
"""(owner of the memory that operations read, None where it is temporary; why it is temporary)."""

log = logging.getLogger("zoopt")


@contextmanager
def in_memory_of(owner: Hashable) -> Iterator[None]:
    """Inside, operations read substitute tensors that keep their addresses, ``owner``'s."""
    yield from _within(owner, "")


@contextmanager
def in_passing(why: str) -> Iterator[None]:
    """Inside, operations read temporary tensors; ``why``, and what to do about it."""
    yield from _within(None, why)


def _within(owner: Hashable, why: str) -> Iterator[None]:
    _places.append((owner, why))
    try:
        yield
    finally:
        _places.pop()


class CudaGraph:
    """Records a function of tensors as a CUDA graph, one per input shape, and replays it.

    Small models and short inputs leave a GPU idle while Python launches its kernels one by one; a
    replay launches all of them at once. The function must do the same operations at every call and
    never wait for the GPU: no ``.item()``, no control flow on values. Parameters must stay where
    they are in memory. The activations of each recorded shape stay allocated.

    The first call with a shape runs as usual, the second records. Under the ``overlay`` and
    ``batched`` engines, which make parameters for each probe, nothing is recorded, and a warning
    says so once. Without a GPU the function is simply called. If recording fails, torch 2.11 can
    draw no more random numbers on that GPU: restart the process.

    Args:
        function: takes tensors, returns tensors, without autograd.

    Example:
        >>> import zoopt
        >>> model = torch.nn.Linear(3, 1)
        >>> loss = CudaGraph(lambda x, y: (model(x) - y).square().mean())
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
        """What the function returns for the inputs.

        Raises:
            TypeError: an input is no tensor.
            RuntimeError: the function cannot be recorded.
        """
        for value in inputs:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"zoopt.CudaGraph was called with a {type(value).__name__}, and takes tensors "
                    "only: what is recorded is the same at each call. Give the function other "
                    "values when it is made, as in CudaGraph(functools.partial(loss, scale=2.0))"
                )
        elsewhere = not inputs or any(value.device.type not in _DEVICES for value in inputs)
        if elsewhere or self._passes():
            return self.function(*inputs)
        owners = tuple(owner for owner, _ in _places)
        kind = inputs[0].device.type
        autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
        key = owners, autocast, tuple((x.shape, x.dtype, x.device) for x in inputs)
        if key not in self._recordings:  # kernels are compiled, and compared with torch's
            self._recordings[key] = None
            return self.function(*inputs)
        recording = self._recordings[key]
        if recording is None:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            recording = self._recordings[key] = _Recording(self.function, inputs, self._pool)
        return recording.replay(inputs)

    def _passes(self) -> bool:
        """Whether operations read temporary memory now; warns of it once."""
        reasons = [why for owner, why in _places if owner is None]
        for why in reasons:
            if why and why not in self._said:
                self._said.add(why)
                log.warning("zoopt.CudaGraph calls its function without a graph: %s", why)
        return bool(reasons)


class _Recording:
    """A function's work on inputs of one shape."""

    def __init__(self, function: Callable[..., Any], inputs: tuple[Tensor, ...], pool: Any) -> None:
        self._inputs = [value.clone() for value in inputs]
        self._graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # of copies that were made before, and will not last
        try:
            with torch.cuda.graph(self._graph, pool=pool):
                self._returned = function(*self._inputs)
        except Exception as error:
            raise RuntimeError(
                f"zoopt.CudaGraph could not record its function: {error}. Nothing in it may wait "
                "for the GPU (.item(), .tolist(), .cpu(), an if on a tensor): return a tensor, and "
                "read it outside. What cannot do without is called without zoopt.CudaGraph"
            ) from error
        finally:
            torch.clear_autocast_cache()

    def replay(self, inputs: tuple[Tensor, ...]) -> Any:
        """What the function returns for other inputs."""
        torch._foreach_copy_(self._inputs, list(inputs))
        self._graph.replay()
        return tree_map_only(Tensor, torch.clone, self._returned)
