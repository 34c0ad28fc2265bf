"""A run's console output and its report."""
