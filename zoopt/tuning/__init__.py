"""The implementation of ``zoopt tune``: settings, data, loop, console, run folder, report."""
