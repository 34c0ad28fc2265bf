"""Objectives: metrics, their combinations, comparisons, and the registry of names."""
