"""Bytes that torch's allocator hands out."""

from torch.profiler import ProfilerActivity, profile


def peak_during(call):
    """Peak bytes during the call, on top of what was allocated before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    now = peak = 0
    events = recorded.profiler.kineto_results.events()
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def bytes_of(tensors):
    """Bytes of the tensors themselves."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
