"""Objectives: metrics, combinations and comparisons of them, and how they are found."""
