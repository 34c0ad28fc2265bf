"""Handling of divergence, lack of memory, stalled progress, and termination from outside."""
