"""Inspects, compares, replays and merges finished runs."""
